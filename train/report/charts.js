// How a chart of the report becomes one of Chart.js.

// An exponential moving average without the pull towards its start; it keeps its memory across a gap.
function smoothed(points, weight) {
  let sum = 0;
  let norm = 0;
  return points.map(([x, y]) => {
    if (y === null) return [x, y];
    sum = weight * sum + (1 - weight) * y;
    norm = weight * norm + (1 - weight);
    return [x, sum / norm];
  });
}

const inside = (ranges, x) => ranges.some(([from, to]) => from <= x && x < to);

// Points of curves that coincide become rings.
const pointRadius = (chart, i) => {
  const lonely = chart.series[i].points.length === 1 ? 3 : 0;  // no line leads to it
  return 2 + lonely + 0.6 * Math.min(5, chart.series.length - 1 - i);
};

function lineDataset(chart, state, series, i) {
  const points = state.smoothing > 0 ? smoothed(series.points, state.smoothing) : series.points;
  const visible = (y) => y !== null && !(state.logarithmic.y && y <= 0);
  const alone = (k) => !visible(points[k - 1]?.[1] ?? null) && !visible(points[k + 1]?.[1] ?? null);
  const place = placeOf(series.name, i);
  const area = `${color(place)}38`;
  return {
    label: series.name,
    data: points.map(([x, y]) => ({ x, y: visible(y) ? y : NaN })),
    borderColor: color(place),
    backgroundColor: color(place),
    borderWidth: 2,
    borderDash: chart.stepped && places.size <= kColors ? [] : dashes(place),
    pointStyle: marker(place),
    clip: 8,
    pointRadius: (context) => (points.length <= kFewPoints || alone(context.dataIndex) ? pointRadius(chart, i) : 0),
    pointHitRadius: 0,
    stepped: chart.stepped ? "before" : false,
    order: -i,
    fill: series.shaded.length > 0 ? "origin" : false,
    segment: {
      backgroundColor: (context) =>
        inside(series.shaded, (context.p0.parsed.x + context.p1.parsed.x) / 2) ? area : "transparent",
    },
  };
}

// A single series shows its categories in the colours that they have as series elsewhere.
function barDataset(chart, series, i) {
  const single = chart.series.length === 1;
  const colors = single
    ? chart.categories.map((name, c) => color(placeOf(name, c)))
    : color(placeOf(series.name, i));
  return {
    label: series.name,
    data: chart.categories.map((_, x) => valueAt(series, x)),
    backgroundColor: colors,
    borderColor: colors,
    maxBarThickness: 30,
  };
}

// What lies nearest in x in each series, since their points need not have the same x.
Chart.Interaction.modes.nearestOfEach = (chart, event) =>
  chart.getSortedVisibleDatasetMetas().flatMap((meta) => {
    const drawn = meta.data
      .map((point, index) => ({ element: point, datasetIndex: meta.index, index }))
      .filter((item) => Number.isFinite(item.element.y) && !item.element.skip);
    const distance = (item) => Math.abs(item.element.x - event.x);
    return drawn.length > 0 ? [drawn.reduce((a, b) => (distance(b) < distance(a) ? b : a))] : [];
  });

// What an axis has to show besides the points.
function spreadRange(chart) {
  const edges = chart.series.flatMap((s) => s.spread.flatMap(([, low, high]) => [low, high]));
  return edges.length > 0 ? { suggestedMin: Math.min(...edges), suggestedMax: Math.max(...edges) } : {};
}

function bandTitle(bands, x) {
  const band = bands.find((b) => x <= b.to) ?? bands[bands.length - 1];
  return `${band.name}, ${Math.round((100 * (x - band.from)) / (band.to - band.from))} %`;
}

function tickText(value) {
  if (value < 1e-3) return value.toExponential(1);
  return show(value < 1 ? Number(value.toPrecision(3)) : value);
}

// The ticks of a logarithmic axis are powers of two (of four, eight ... where these are many). An axis with less than
// two of them keeps the ticks of Chart.js, but for those just before and behind it.
function setLogarithmicTicks(scale) {
  const kMost = 9;
  const first = Math.ceil(Math.log2(scale.min) - 1e-6);
  const last = Math.floor(Math.log2(scale.max) + 1e-6);
  const step = Math.max(1, Math.ceil((last - first + 1) / kMost));
  const ticks = [];
  for (let power = Math.ceil(first / step) * step; power <= last; power += step) ticks.push({ value: 2 ** power });
  const inside = scale.ticks.filter((tick) => scale.min <= tick.value && tick.value <= scale.max);
  scale.ticks = ticks.length > 1 ? ticks : inside;
}

function scaleOptions(axis, logarithmic) {
  const ticks = { color: style("--quiet"), maxRotation: 0, autoSkipPadding: 14 };
  if (logarithmic) ticks.callback = tickText;
  return {
    type: logarithmic ? "logarithmic" : "linear",
    bounds: logarithmic ? "data" : "ticks",
    afterBuildTicks: logarithmic ? setLogarithmicTicks : undefined,
    title: { display: axis.title !== "", text: axis.title, color: style("--quiet") },
    grid: { color: style("--grid"), borderColor: style("--line") },
    ticks,
  };
}

// Bars are horizontal, so that there is room for the names of their categories.
function barScales(chart, state) {
  const { suggestedMax } = spreadRange(chart);
  const x = { ...scaleOptions(chart.y, state.logarithmic.y), stacked: chart.stacked, beginAtZero: true, suggestedMax };
  const y = { ...scaleOptions(chart.x, false), stacked: chart.stacked, type: "category" };
  y.grid.display = false;
  y.ticks.autoSkip = false;
  return { x, y };
}

function lineScales(chart, state) {
  const x = scaleOptions(chart.x, state.logarithmic.x);
  const y = { ...scaleOptions(chart.y, state.logarithmic.y), ...spreadRange(chart) };
  x.grid.display = false;
  if (!state.logarithmic.x) {
    x.max = Math.max(...chart.series.map((s) => s.points[s.points.length - 1]?.[0] ?? 0));
    x.ticks.includeBounds = false;  // round numbers only
  }
  if (chart.bands.length > 0) {
    Object.assign(x, { min: chart.bands[0].from, max: chart.bands[chart.bands.length - 1].to });
    x.ticks.color = "transparent";  // the bands' names stand there
    y.beginAtZero = true;
  }
  return { x, y };
}

function tooltipTitle(chart, items) {
  if (items.length === 0 || chart.kind === "bars") return items[0]?.label;
  const x = items[0].parsed.x;
  return chart.bands.length > 0 ? bandTitle(chart.bands, x) : `${chart.x.title} ${show(x)}`;
}

// A series without a line.
const isPoint = (chart, series) => chart.kind === "line" && series.points.length === 1;

// Its mark in the legend is that of its point.
function legendLabels(drawn, chart) {
  return Chart.defaults.plugins.legend.labels.generateLabels(drawn).map((label) => {
    const series = chart.series[label.datasetIndex];
    return isPoint(chart, series) ? { ...label, pointStyle: marker(placeOf(series.name, label.datasetIndex)) } : label;
  });
}

function chartOptions(chart, state) {
  const bars = chart.kind === "bars";
  const points = chart.series.some((series) => isPoint(chart, series));
  const value = (item) => (bars ? item.parsed.x : item.parsed.y);
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    indexAxis: bars ? "y" : "x",
    interaction: { mode: bars ? "index" : "nearestOfEach", axis: bars ? "y" : "x", intersect: false },
    scales: bars ? barScales(chart, state) : lineScales(chart, state),
    plugins: {
      bands: { bands: chart.bands },
      spread: { chart },
      names: { chart },
      legend: {
        display: chart.series.length > 1,
        align: "start",
        labels: {
          color: style("--text"),
          usePointStyle: !bars,
          pointStyle: "line",
          ...(points ? { boxHeight: 8 } : { pointStyleWidth: 28 }),
          boxWidth: 12,
          sort: (a, b) => a.datasetIndex - b.datasetIndex,
          generateLabels: (drawn) => legendLabels(drawn, chart),
        },
      },
      tooltip: {
        usePointStyle: !bars,
        itemSort: (a, b) => a.datasetIndex - b.datasetIndex,
        callbacks: {
          title: (items) => tooltipTitle(chart, items),
          label: (item) => `${item.dataset.label}  ${show(value(item))}`,
        },
      },
    },
  };
}

function chartConfig(chart, state) {
  const bars = chart.kind === "bars";
  const dataset = (series, i) => (bars ? barDataset(chart, series, i) : lineDataset(chart, state, series, i));
  return {
    type: bars ? "bar" : "line",
    data: { labels: bars ? chart.categories : undefined, datasets: chart.series.map(dataset) },
    options: chartOptions(chart, state),
    plugins: [bandsPlugin, spreadPlugin, namesPlugin],
  };
}

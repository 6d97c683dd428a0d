// Draws the report that stands in the page as JSON. Names reach the page as text, never as HTML.
(() => {
  "use strict";

  const report = JSON.parse(document.getElementById("report").textContent);
  const kColors = 6;
  // Curves that lie on each other show through the gaps of those above.
  const kDashes = [[], [9, 6], [3, 6], [12, 4, 3, 4], [6, 10], [2, 3]];
  const kFewPoints = 40;  // are shown as points too

  // --- small helpers ----------------------------------------------------------------------------------

  function element(tag, { parent, text, ...attributes } = {}) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = (i) => style(`--series-${(i % kColors) + 1}`);
  // Where colours come again, they come with other dashes.
  const dashes = (i) => kDashes[(i + Math.floor(i / kColors)) % kDashes.length];

  // What has a name keeps its place among the colours and dashes, from chart to chart.
  const places = new Map();
  for (const { name } of report.charts.filter((c) => c.kind === "line").flatMap((c) => c.series)) {
    if (!places.has(name)) places.set(name, places.size);
  }
  const placeOf = (name, otherwise) => places.get(name) ?? otherwise;

  // Six significant digits, without trailing zeros.
  const show = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(6))) : "–");

  // --- tables -----------------------------------------------------------------------------------------

  function addTable(parent, columns, rows) {
    const table = element("table", { parent: element("div", { parent, class: "scroll" }) });
    const head = element("tr", { parent: element("thead", { parent: table }) });
    for (const column of columns) element("th", { parent: head, scope: "col", text: column });
    const body = element("tbody", { parent: table });
    for (const row of rows) {
      const line = element("tr", { parent: body });
      for (const cell of row) element("td", { parent: line, text: cell });
    }
  }

  // A summary that unfolds what `fill` adds; long tables cost nothing until somebody looks at them.
  function addFolded(parent, attributes, fill) {
    const details = element("details", { parent, ...attributes });
    const summary = element("summary", { parent: details });
    details.addEventListener("toggle", () => fill(details), { once: true });
    return { details, summary };
  }

  // Every tenth of each band, and the highest value in it: the points themselves are too many, and each
  // series has its own.
  function bandRows(chart) {
    const valueBefore = ({ points }, x) => (points.filter((p) => p[0] <= x).pop() ?? [x, null])[1];
    const highest = ({ points }, { from, to }) =>
      Math.max(...points.filter(([x]) => from <= x && x <= to).map((p) => p[1]));
    const row = (name, valueOf) => [name, ...chart.series.map((s) => show(valueOf(s)))];
    const tenths = [...Array(10).keys()];
    return chart.bands.flatMap((band) => [
      ...tenths.map((i) => {
        const x = band.from + (i / 10) * (band.to - band.from);
        return row(`${band.name}, ${10 * i} %`, (s) => valueBefore(s, x));
      }),
      row(`${band.name}, highest`, (s) => highest(s, band)),
    ]);
  }

  function chartRows(chart) {
    if (chart.kind === "bars") {
      return chart.categories.map((name, x) => [name, ...chart.series.map((s) => show(valueAt(s, x)))]);
    }
    if (chart.bands.length > 0) return bandRows(chart);
    const columns = chart.series.map((s) => new Map(s.points));
    const xs = [...new Set(chart.series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
    return xs.map((x) => [show(x), ...columns.map((column) => (column.has(x) ? show(column.get(x)) : ""))]);
  }

  const valueAt = (series, x) => (series.points.find((p) => p[0] === x) ?? [x, null])[1];

  // --- charts -----------------------------------------------------------------------------------------

  // An exponential moving average without the pull towards its start; it forgets nothing across a gap.
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

  // Points of curves that lie on each other become rings.
  const pointRadius = (chart, i) => 2 + 0.6 * (chart.series.length - 1 - i);

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
      borderDash: chart.stepped ? [] : dashes(place),
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

  const bandsPlugin = {
    id: "bands",
    beforeDatasetsDraw({ ctx, chartArea, scales, width }, _, { bands }) {
      bands.forEach((band, i) => {
        const left = scales.x.getPixelForValue(band.from);
        const right = scales.x.getPixelForValue(band.to);
        ctx.save();
        ctx.fillStyle = style("--band");
        if (i % 2 === 1) ctx.fillRect(left, chartArea.top, right - left, chartArea.height);
        ctx.fillStyle = style("--quiet");
        ctx.font = Chart.helpers.toFont(Chart.defaults.font).string;
        ctx.textAlign = "center";
        const furthest = width - ctx.measureText(band.name).width / 2;
        ctx.fillText(band.name, Math.min((left + right) / 2, furthest), chartArea.bottom + 16);
        ctx.restore();
      });
    },
  };

  function bandTitle(bands, x) {
    const band = bands.find((b) => x <= b.to) ?? bands[bands.length - 1];
    return `${band.name}, ${Math.round((100 * (x - band.from)) / (band.to - band.from))} %`;
  }

  // A logarithmic axis names 1, 2 and 5 of each decade; over many decades the powers of ten alone, and within
  // one decade every tick.
  function logarithmicTick(value, _, ticks) {
    const decades = Math.log10(ticks[ticks.length - 1].value / ticks[0].value);
    const leading = Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9));
    if (decades > 1 && !(decades > 2.5 ? [1] : [1, 2, 5]).includes(leading)) return "";
    return value < 1e-3 ? value.toExponential(0) : show(value);
  }

  function scaleOptions(axis, logarithmic) {
    const ticks = { color: style("--quiet"), maxRotation: 0, autoSkipPadding: 14 };
    if (logarithmic) ticks.callback = logarithmicTick;
    return {
      type: logarithmic ? "logarithmic" : "linear",
      bounds: logarithmic ? "data" : "ticks",
      title: { display: axis.title !== "", text: axis.title, color: style("--quiet") },
      grid: { color: style("--grid"), borderColor: style("--line") },
      ticks,
    };
  }

  // Bars lie, so that there is room for the names of their categories.
  function barScales(chart, state) {
    const x = { ...scaleOptions(chart.y, state.logarithmic.y), stacked: chart.stacked, beginAtZero: true };
    const y = { ...scaleOptions(chart.x, false), stacked: chart.stacked, type: "category" };
    y.grid.display = false;
    y.ticks.autoSkip = false;
    return { x, y };
  }

  function lineScales(chart, state) {
    const x = scaleOptions(chart.x, state.logarithmic.x);
    const y = scaleOptions(chart.y, state.logarithmic.y);
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

  function chartOptions(chart, state) {
    const bars = chart.kind === "bars";
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
        legend: {
          display: chart.series.length > 1,
          align: "start",
          labels: {
            color: style("--text"),
            usePointStyle: !bars,
            pointStyle: "line",
            pointStyleWidth: 28,
            boxWidth: 12,
            sort: (a, b) => a.datasetIndex - b.datasetIndex,
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
      plugins: [bandsPlugin],
    };
  }

  // --- the page ---------------------------------------------------------------------------------------

  const views = [];

  function draw(view) {
    view.drawn?.destroy();
    view.drawn = new Chart(view.canvas, chartConfig(view.chart, view.state));
  }

  function addSwitch(view, parent, axis) {
    if (!view.chart[axis].switchable) return;
    const label = element("label", { parent });
    const box = element("input", { parent: label, type: "checkbox" });
    label.append(`log ${axis}`);
    box.checked = view.state.logarithmic[axis];
    box.addEventListener("change", () => {
      view.state.logarithmic[axis] = box.checked;
      draw(view);
    });
  }

  function addSmoothing(view, parent) {
    if (!view.chart.smoothable) return;
    const label = element("label", { parent, text: "smooth" });
    const slider = element("input", { parent: label, type: "range", min: 0, max: 0.98, step: 0.02, value: 0 });
    slider.addEventListener("input", () => {
      view.state.smoothing = Number(slider.value);
      draw(view);
    });
  }

  function addChart(parent, chart) {
    const wide = chart.smoothable || chart.bands.length > 0;
    const figure = element("figure", { parent, class: wide ? "card wide" : "card" });
    const head = element("div", { parent: figure, class: "head" });
    element("h2", { parent: head, text: chart.title });
    const controls = element("div", { parent: head, class: "controls" });
    if (chart.note !== "") element("p", { parent: figure, class: "note", text: chart.note });
    const frame = element("div", { parent: figure, class: "canvas" });
    const names = chart.series.map((s) => s.name).join(", ");
    const label = `${chart.title}: ${names}. The table below has the numbers.`;
    const canvas = element("canvas", { parent: frame, role: "img", "aria-label": label });
    const logarithmic = { x: chart.x.logarithmic, y: chart.y.logarithmic };
    const view = { chart, canvas, state: { logarithmic, smoothing: 0 } };
    addSmoothing(view, controls);
    addSwitch(view, controls, "x");
    addSwitch(view, controls, "y");
    const columns = [chart.kind === "bars" ? "" : chart.x.title, ...chart.series.map((s) => s.name)];
    const { summary } = addFolded(figure, {}, (details) => addTable(details, columns, chartRows(chart)));
    summary.textContent = `table: ${chart.y.title}`;
    views.push(view);
    draw(view);
  }

  function addFacts(parent) {
    if (report.facts.length === 0) return;
    const list = element("dl", { parent: element("section", { parent, class: "card" }) });
    for (const [name, value] of report.facts) {
      element("dt", { parent: list, text: name });
      element("dd", { parent: list, text: value, class: name === "command" ? "command" : "" });
    }
  }

  function addTitledTable(parent, { title, columns, rows, folded }) {
    if (folded) {
      const { summary } = addFolded(element("section", { parent }), { class: "card" }, (details) =>
        addTable(details, columns, rows));
      element("h2", { parent: summary, text: title });
      return;
    }
    const section = element("section", { parent, class: "card" });
    element("h2", { parent: section, text: title });
    addTable(section, columns, rows);
  }

  function setDefaults() {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 12;
    Chart.defaults.color = style("--quiet");
  }

  function addPage() {
    const page = document.getElementById("page");
    element("h1", { parent: page, text: report.title });
    if (report.finding !== "") element("p", { parent: page, class: "finding", text: report.finding });
    for (const text of report.warnings) element("p", { parent: page, class: "warning", text });
    for (const table of report.tables.filter((t) => !t.folded)) addTitledTable(page, table);
    const charts = element("section", { parent: page, class: "charts" });
    for (const chart of report.charts) addChart(charts, chart);
    addFacts(page);
    for (const table of report.tables.filter((t) => t.folded)) addTitledTable(page, table);
  }

  function redraw() {
    setDefaults();
    views.forEach(draw);
  }

  // report.html#tables unfolds every table.
  function unfold() {
    if (location.hash !== "#tables") return;
    for (const details of document.querySelectorAll("details")) details.open = true;
  }

  setDefaults();
  addPage();
  unfold();
  addEventListener("hashchange", unfold);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();

// What the charts of the report draw besides what Chart.js draws: plugins of it.

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

// Around a line, the band from the lowest to the highest of the values that it averages; on a bar, a whisker.
const spreadPlugin = {
  id: "spread",
  beforeDatasetsDraw(drawn, _, { chart }) {
    if (chart.kind === "line") drawSpreads(drawn, chart, drawBand);
  },
  afterDatasetsDraw(drawn, _, { chart }) {
    if (chart.kind === "bars") drawSpreads(drawn, chart, drawWhiskers);
  },
};

function drawSpreads(drawn, chart, drawSpread) {
  const { ctx, scales, chartArea } = drawn;
  ctx.save();
  ctx.beginPath();
  ctx.rect(chartArea.left, chartArea.top, chartArea.width, chartArea.height);
  ctx.clip();
  chart.series.forEach((series, i) => {
    if (series.spread.length > 0 && drawn.isDatasetVisible(i)) drawSpread(ctx, scales, series, i);
  });
  ctx.restore();
}

function drawBand(ctx, { x, y }, { name, spread }, i) {
  ctx.beginPath();
  for (const [at, , high] of spread) ctx.lineTo(x.getPixelForValue(at), y.getPixelForValue(high));
  for (const [at, low] of [...spread].reverse()) ctx.lineTo(x.getPixelForValue(at), y.getPixelForValue(low));
  ctx.closePath();
  ctx.fillStyle = color(placeOf(name, i)) + (places.size > kColors ? "18" : "30");  // more bands, paler
  ctx.fill();
}

function drawWhiskers(ctx, { x, y }, { spread }) {
  const kEnd = 5;
  ctx.strokeStyle = style("--text");
  ctx.lineWidth = 1.5;
  for (const [at, low, high] of spread) {
    const [from, to, middle] = [x.getPixelForValue(low), x.getPixelForValue(high), y.getPixelForValue(at)];
    ctx.beginPath();
    ctx.moveTo(from, middle);
    ctx.lineTo(to, middle);
    for (const end of [from, to]) {
      ctx.moveTo(end, middle - kEnd);
      ctx.lineTo(end, middle + kEnd);
    }
    ctx.stroke();
  }
}

// Beside each point without a line its name, where that covers neither a point nor another name; the legend has it anyway.
const namesPlugin = {
  id: "names",
  afterDatasetsDraw(drawn, _, { chart }) {
    const kHeight = 14;
    const { ctx, chartArea } = drawn;
    const points = chart.series.flatMap((series, i) =>
      isPoint(chart, series) && drawn.isDatasetVisible(i) ? [{ name: series.name, ...at(drawn, i) }] : []);
    const taken = points.map(({ x, y }) => box(x - 6, y - 6, 12, 12));
    ctx.save();
    ctx.font = Chart.helpers.toFont(Chart.defaults.font).string;
    ctx.fillStyle = style("--text");
    ctx.textBaseline = "middle";
    for (const { name, x, y } of points) {
      const width = ctx.measureText(name).width;
      const [left, right, centre] = [x - 9 - width, x + 9, x - width / 2];
      const candidates = [[right, y], [left, y], [centre, y - 15], [centre, y + 15], [left, y - 12], [right, y - 12]];
      const free = candidates.find(([left, middle]) => {
        const place = box(left, middle - kHeight / 2, width, kHeight);
        return isInside(place, chartArea) && !taken.some((other) => overlap(place, other));
      });
      if (free === undefined) continue;
      taken.push(box(free[0], free[1] - kHeight / 2, width, kHeight));
      ctx.fillText(name, ...free);
    }
    ctx.restore();
  },
};

const at = (drawn, i) => drawn.getDatasetMeta(i).data[0].getProps(["x", "y"]);
const box = (left, top, width, height) => ({ left, top, right: left + width, bottom: top + height });
const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const isInside = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;

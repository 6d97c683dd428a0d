// What everything on the page is made of: elements, colours, tables. page.html joins this file, charts.js and page.js
// into one script. Names reach the page as text, never as HTML.

const report = JSON.parse(document.getElementById("report").textContent);
const kColors = 6;
// Curves that lie on each other show through the gaps of those above.
const kDashes = [[], [9, 6], [3, 6], [12, 4, 3, 4], [6, 10], [2, 3]];
const kFewPoints = 40;  // are shown as points too
const kLongestNumber = 40;  // characters; what is longer is a sentence

// --- small helpers ----------------------------------------------------------------------------------

function element(tag, { parent, text, ...attributes } = {}) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const kMarkers = ["circle", "rect", "triangle", "rectRot", "star", "crossRot"];
const color = (i) => style(`--series-${(i % kColors) + 1}`);
// Where colours repeat, dashes and markers differ.
const round = (i) => Math.floor(i / kColors);
const dashes = (i) => kDashes[(i + round(i)) % kDashes.length];
const marker = (i) => kMarkers[round(i) % kMarkers.length];

// What has a name keeps its place among the colours and dashes, from chart to chart.
const places = new Map();
for (const { name } of report.charts.filter((c) => c.kind === "line").flatMap((c) => c.series)) {
  if (!places.has(name)) places.set(name, places.size);
}
const placeOf = (name, otherwise) => places.get(name) ?? otherwise;

// Six significant digits, without trailing zeros.
const show = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(6))) : "–");

// --- tables -----------------------------------------------------------------------------------------

// A column of sentences is set as text, which wraps; all others as numbers, which do not.
function addTable(parent, columns, rows) {
  const table = element("table", { parent: element("div", { parent, class: "scroll" }) });
  const head = element("tr", { parent: element("thead", { parent: table }) });
  const kinds = columns.map((_, i) => (rows.some((row) => row[i]?.length > kLongestNumber) ? "text" : "number"));
  columns.forEach((text, i) => element("th", { parent: head, scope: "col", class: kinds[i], text }));
  const body = element("tbody", { parent: table });
  for (const row of rows) {
    const line = element("tr", { parent: body });
    row.forEach((text, i) => element("td", { parent: line, class: kinds[i], text }));
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

// Draws the report that stands in the page as JSON.

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

// Room for the names of bars, and for a legend in the one column that a telephone has: Chart.js gives it at most half.
function leastHeight(chart) {
  const kPlot = 200;
  const kLine = 18;
  const legend = kLine * chart.series.length;
  return chart.kind === "bars" ? 90 + kLine * chart.categories.length : Math.max(kPlot + legend, 2.2 * legend);
}

function addChart(parent, chart) {
  const wide = chart.smoothable || chart.bands.length > 0 || chart.series.length > kColors;
  const figure = element("figure", { parent, class: wide ? "card wide" : "card" });
  const head = element("div", { parent: figure, class: "head" });
  element("h2", { parent: head, text: chart.title });
  const controls = element("div", { parent: head, class: "controls" });
  if (chart.note !== "") element("p", { parent: figure, class: "note", text: chart.note });
  const frame = element("div", { parent: figure, class: "canvas" });
  frame.style.minHeight = `${leastHeight(chart)}px`;
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
  if (report.attention !== null) addAttention(page, report.attention);
  if (report.lens !== null) addLens(page, report.lens);
  for (const table of report.tables.filter((t) => !t.folded)) addTitledTable(page, table);
  const charts = element("section", { parent: page, class: "charts" });
  for (const chart of report.charts) addChart(charts, chart);
  for (const grid of report.grids) addGridCard(charts, grid);
  addFacts(page);
  for (const table of report.tables.filter((t) => t.folded)) addTitledTable(page, table);
}

function redraw() {
  setDefaults();
  views.forEach(draw);
  redrawGrids();
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

// Tables of coloured cells on a canvas: maps of attention, heat maps, the walk over tiles.

const grids = [];
const kLabel = 11;   // pixels of a label's font
const kSteps = 128;  // shades of a heat map

// The shades from "nothing" to "all", as the page's colours have them now.
function heatColors() {
  const channels = (name) => [1, 3, 5].map((at) => parseInt(style(name).slice(at, at + 2), 16));
  const [low, high] = [channels("--card"), channels("--heat")];
  return [...Array(kSteps + 1).keys()].map((i) => {
    const share = (i / kSteps) ** 0.6;  // small shares can be told from none
    return `rgb(${low.map((from, c) => Math.round(from + share * (high[c] - from))).join(" ")})`;
  });
}
let heatShades = heatColors();
const heat = (share) => heatShades[Math.round(kSteps * Math.min(1, Math.max(0, share)))];

function addHeatLegend(parent, low, high) {
  const legend = element("p", { parent, class: "note legend" });
  element("span", { parent: legend, text: low });
  const bar = element("canvas", { parent: legend, width: kSteps, height: 1, "aria-hidden": true, class: "shades" });
  element("span", { parent: legend, text: high });
  const paint = () => {
    const context = bar.getContext("2d");
    heatShades.forEach((color, x) => {
      context.fillStyle = color;
      context.fillRect(x, 0, 1, 1);
    });
  };
  paint();
  grids.push({ draw: paint });
}

function addKinds(parent, kinds) {
  const legend = element("p", { parent, class: "note legend" });
  for (const { name, color: variable } of kinds) {
    element("span", { parent: legend, class: "swatch", style: `background: var(${variable})` });
    element("span", { parent: legend, text: name });
  }
}

// Where things stand on a canvas of this width.
function gridLayout(grid, width, context) {
  const longest = (labels) => Math.max(0, ...labels.map((label) => context.measureText(label).width));
  const titles = 1.6 * kLabel;
  const left = longest(grid.rows) + 8 + titles;
  const fitting = Math.floor((width - left - 1) / grid.columns.length);
  const cell = Math.min(grid.largest ?? 26, Math.max(grid.least ?? 5, fitting));
  const upright = longest(grid.columns) <= cell;
  const top = (upright ? kLabel + 8 : longest(grid.columns) + 8) + titles;
  const every = Math.ceil((kLabel + 2) / cell);
  return { left, top, cell, upright, every };
}

function drawLabels(context, grid, { left, top, cell, upright, every }) {
  context.fillStyle = style("--quiet");
  context.textBaseline = "middle";
  context.textAlign = "right";
  grid.rows.forEach((label, r) => {
    if (r % every === 0) context.fillText(label, left - 4, top + (r + 0.5) * cell);
  });
  grid.columns.forEach((label, c) => {
    if (c % every !== 0) return;
    context.save();
    context.translate(left + (c + 0.5) * cell, top - 4);
    context.rotate(upright ? 0 : -Math.PI / 2);
    context.textAlign = upright ? "center" : "left";
    context.fillText(label, 0, upright ? -kLabel / 2 : 0);
    context.restore();
  });
  context.textAlign = "left";
  context.fillText(grid.columnTitle, left, kLabel / 2 + 1);
  context.save();
  context.translate(kLabel / 2 + 1, top + grid.rows.length * cell);
  context.rotate(-Math.PI / 2);
  context.fillText(grid.rowTitle, 0, 0);
  context.restore();
}

// In one line or, if that is too wide for a cell, a word in each; nothing if that does not fit either.
function drawText(context, text, x, y, cell) {
  const kRoom = 2, kLine = kLabel + 2;
  const fits = (line) => context.measureText(line).width <= cell - 2 * kRoom;
  const lines = fits(text) ? [text] : text.split(" ");
  if (!lines.every(fits) || lines.length * kLine > cell) return;
  lines.forEach((line, n) => context.fillText(line, x, y + (n - (lines.length - 1) / 2) * kLine));
}

function drawCells(context, grid, { left, top, cell }) {
  const gap = cell >= 8 ? 1 : 0;
  context.textAlign = "center";
  grid.rows.forEach((_, r) =>
    grid.columns.forEach((__, c) => {
      context.fillStyle = grid.color(r, c);
      context.fillRect(left + c * cell, top + r * cell, cell - gap, cell - gap);
      context.fillStyle = grid.textColor?.(r, c) ?? context.fillStyle;
      drawText(context, grid.text?.(r, c) ?? "", left + (c + 0.5) * cell, top + (r + 0.5) * cell, cell);
    }));
}

function drawCursor(context, { row, column }, { left, top, cell }) {
  context.strokeStyle = style("--text");
  context.lineWidth = 1.5;
  context.strokeRect(left + column * cell - 0.5, top + row * cell - 0.5, cell, cell);
}

const kMoves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// grid: { label, rows, columns, rowTitle, columnTitle, color(r, c), describe(r, c) } and, if cells hold text, text(r, c)
// and textColor(r, c). The cursor tells of one cell at a time; the pointer, a finger and the arrow keys move it.
function addGrid(parent, grid) {
  const readout = element("p", { parent, class: "readout", "aria-live": "polite" });
  const frame = element("div", { parent, class: "grid" });
  const canvas = element("canvas", { parent: frame, tabindex: 0, role: "img", "aria-label": grid.label });
  const context = canvas.getContext("2d");
  const cursor = { row: 0, column: 0 };
  let layout;

  const draw = () => {
    const font = `${kLabel}px ${getComputedStyle(document.body).fontFamily}`;
    context.font = font;
    layout = gridLayout(grid, frame.clientWidth, context);
    const size = [layout.left + layout.cell * grid.columns.length + 2, layout.top + layout.cell * grid.rows.length + 2];
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = size.map((length) => Math.ceil(length * ratio));
    [canvas.style.width, canvas.style.height] = size.map((length) => `${length}px`);
    context.scale(ratio, ratio);
    context.font = font;
    drawLabels(context, grid, layout);
    drawCells(context, grid, layout);
    drawCursor(context, cursor, layout);
    readout.textContent = grid.describe(cursor.row, cursor.column);
  };
  const moveTo = (row, column) => {
    const clamped = (i, count) => Math.min(count - 1, Math.max(0, i));
    Object.assign(cursor, { row: clamped(row, grid.rows.length), column: clamped(column, grid.columns.length) });
    draw();
    grid.moved?.(cursor);
  };
  const point = ({ offsetX, offsetY }) => {
    const at = (offset, from) => Math.floor((offset - from) / layout.cell);
    const [row, column] = [at(offsetY, layout.top), at(offsetX, layout.left)];
    const inside = row >= 0 && column >= 0 && row < grid.rows.length && column < grid.columns.length;
    if (inside && (row !== cursor.row || column !== cursor.column)) moveTo(row, column);
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", (event) => {
    const move = kMoves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    moveTo(cursor.row + move[0], cursor.column + move[1]);
  });
  addEventListener("resize", draw);
  grids.push({ draw });
  draw();
  return { draw, moveTo };
}

function redrawGrids() {
  heatShades = heatColors();
  for (const grid of grids) grid.draw();
}

// --- Grids of a report -------------------------------------------------------------------------------

const kindVariable = (kind) => `--kind-${kind + 1}`;

// From the lowest value to the highest.
function valueScale(cells) {
  const values = cells.map((cell) => cell.value).filter((value) => value !== null);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return { low, high, share: (value) => (high > low ? (value - low) / (high - low) : 1) };
}

function addGridCard(parent, grid) {
  const figure = element("figure", { parent, class: "card wide" });
  element("h2", { parent: figure, text: grid.title });
  if (grid.note !== "") element("p", { parent: figure, class: "note", text: grid.note });
  const cellAt = (r, c) => grid.cells[r * grid.columns.length + c];
  const byValue = grid.kinds.length === 0;
  const scale = byValue ? valueScale(grid.cells) : null;
  const rounded = (value) => String(Number(value.toPrecision(3)));
  if (byValue) addHeatLegend(figure, rounded(scale.low), rounded(scale.high));
  else addKinds(figure, grid.kinds.map((name, kind) => ({ name, color: kindVariable(kind) })));
  const valueColor = ({ value }) => (value === null ? style("--later") : heat(scale.share(value)));
  addGrid(figure, {
    label: `${grid.title}. The arrow keys move over the cells; the table below has the numbers.`,
    rows: grid.rows,
    columns: grid.columns,
    rowTitle: grid.row_title,
    columnTitle: grid.column_title,
    least: 20,
    largest: 64,
    color: (r, c) => (byValue ? valueColor(cellAt(r, c)) : style(kindVariable(cellAt(r, c).kind))),
    text: (r, c) => cellAt(r, c).text,
    textColor: (r, c) => style(byValue && scale.share(cellAt(r, c).value) > 0.4 ? "--card" : "--text"),
    describe: (r, c) => cellAt(r, c).detail,
  });
  const { summary } = addFolded(figure, {}, (details) =>
    addTable(details, [`${grid.row_title} \\ ${grid.column_title}`, ...grid.columns], grid.rows.map((name, r) =>
      [name, ...grid.columns.map((_, c) => cellAt(r, c).text)])));
  summary.textContent = `table: ${grid.title}`;
}

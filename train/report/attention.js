// Attention as heat maps, and the residual stream as the model's head reads it.

const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const shade = (share) => `color-mix(in srgb, var(--heat) ${100 * share}%, transparent)`;
const quoted = (token) => `‘${token}’`;

// Probabilities come in ten-thousandths, for the keys of a query from the first visible one on.
const kUnit = 1e-4;
const firstKey = (view, query) => (view.window === null ? 0 : Math.max(0, query - view.window));
const isVisible = (view, query, key) => firstKey(view, query) <= key && key <= query;
const probability = (view, head, query, key) => kUnit * head.p[query][key - firstKey(view, query)];

function cellColor(view, head, query, key) {
  if (!isVisible(view, query, key)) return style(key > query ? "--later" : "--outside");
  return heat(probability(view, head, query, key));
}

function describeCell(view, head, query, key) {
  const [from, to] = [query, key].map((at) => `${at} ${quoted(view.tokens[at])}`);
  if (key > query) return `query ${from}, key ${to}: masked, a later token`;
  if (!isVisible(view, query, key)) return `query ${from}, key ${to}: masked, outside the window of ${view.window}`;
  const sink = head.sink === null ? "" : `; the sink takes ${percent(kUnit * head.sink[query])} of the row`;
  return `query ${from} gives key ${to} ${percent(probability(view, head, query, key))}${sink}`;
}

const placed = (token, position) => `${position}: ${token}`;
const nameOf = (layer, head) => `layer ${layer + 1}, head ${head + 1}`;

// One pixel a cell.
function drawThumbnail(canvas, view, head) {
  const context = canvas.getContext("2d");
  view.tokens.forEach((_, query) =>
    view.tokens.forEach((__, key) => {
      context.fillStyle = cellColor(view, head, query, key);
      context.fillRect(key, query, 1, 1);
    }));
}

function addThumbnail(parent, view, [layer, index], choose) {
  const head = view.layers[layer][index];
  const button = element("button", { parent, type: "button", class: "thumbnail", "aria-pressed": false });
  const size = view.tokens.length;
  const canvas = element("canvas", { parent: button, width: size, height: size, "aria-hidden": true });
  element("span", { parent: button, text: `head ${index + 1}` });
  for (const note of head.notes) element("span", { parent: button, class: "quiet", text: note });
  button.addEventListener("click", () => choose(layer, index));
  const draw = () => drawThumbnail(canvas, view, head);
  draw();
  grids.push({ draw });
  return button;
}

// A row of thumbnails a layer; heads that share a key/value head stand in one frame.
function addOverview(parent, view, choose) {
  const buttons = new Map();
  const shared = view.layers[0].some((head, h) => view.layers[0].findIndex((o) => o.kv_head === head.kv_head) !== h);
  view.layers.forEach((heads, layer) => {
    const row = element("div", { parent, class: "layer" });
    element("h3", { parent: row, text: `layer ${layer + 1}` });
    const line = element("div", { parent: row, class: "heads" });
    const groups = new Map();
    heads.forEach((head, h) => {
      if (!groups.has(head.kv_head)) {
        const group = element("div", { parent: line, class: shared ? "group shared" : "group" });
        if (shared) element("p", { parent: group, class: "note", text: `share K/V head ${head.kv_head + 1}` });
        groups.set(head.kv_head, element("div", { parent: group, class: "heads" }));
      }
      buttons.set(nameOf(layer, h), addThumbnail(groups.get(head.kv_head), view, [layer, h], choose));
    });
  });
  return buttons;
}

// The tokens as text, shaded by how much one query attends to each.
function addStrip(parent) {
  const title = element("p", { parent, class: "note" });
  const strip = element("p", { parent, class: "strip" });
  return (view, head, query) => {
    title.textContent = `what query ${query} ${quoted(view.tokens[query])} attends to:`;
    strip.replaceChildren();
    view.tokens.forEach((token, key) => {
      const span = element("span", { parent: strip, text: token, class: key === query ? "own" : "" });
      if (!isVisible(view, query, key)) span.classList.add("masked");
      else span.style.backgroundColor = shade(0.75 * probability(view, head, query, key));
    });
  };
}

function strongestKey(view, head, query) {
  const row = head.p[query];
  return firstKey(view, query) + row.indexOf(Math.max(...row));
}

function addAttentionLegends(parent, view) {
  addHeatLegend(parent, "probability 0", "1");
  const kinds = [{ name: "masked: a later token", color: "--later" }];
  if (view.window !== null) kinds.push({ name: `masked: outside the window of ${view.window}`, color: "--outside" });
  addKinds(parent, kinds);
}

function addAttention(page, view) {
  const section = element("section", { parent: page, class: "card attention" });
  element("h2", { parent: section, text: "Attention" });
  const sinks = view.layers[0][0].sink === null ? "" : ", less what the sink takes";
  const note = `A map a head: each row is a token that asks (query), each column one that it may look at (key). A row sums \
to 1${sinks}.`;
  element("p", { parent: section, class: "note", text: note });
  addAttentionLegends(section, view);
  let chosen = view.layers[view.shown.layer][view.shown.head];
  let query = view.shown.query;
  const buttons = addOverview(section, view, (layer, head) => choose(layer, head));
  const title = element("h3", { parent: section });
  const showStrip = addStrip(section);
  const labels = view.tokens.map(placed);
  const grid = addGrid(section, {
    label: "The map of the chosen head. The arrow keys move over its cells; the table below has the numbers.",
    rows: labels,
    columns: labels,
    rowTitle: "query",
    columnTitle: "key",
    color: (query, key) => cellColor(view, chosen, query, key),
    describe: (query, key) => describeCell(view, chosen, query, key),
    moved: ({ row }) => {
      query = row;
      showStrip(view, chosen, query);
    },
  });
  const table = addMapTable(section, view, () => chosen);
  function choose(layer, head) {
    chosen = view.layers[layer][head];
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", name === nameOf(layer, head));
    title.textContent = [nameOf(layer, head), ...chosen.notes].join(" · ");
    grid.moveTo(query, strongestKey(view, chosen, query));
    table();
  }
  choose(view.shown.layer, view.shown.head);
}

// The numbers of the chosen head, once somebody has unfolded them.
function addMapTable(parent, view, chosen) {
  let place;
  const fill = () => {
    if (place === undefined) return;
    place.replaceChildren();
    const cell = (query, key) => (isVisible(view, query, key) ? show(probability(view, chosen(), query, key)) : "masked");
    const sinks = chosen().sink !== null;
    const rows = view.tokens.map((token, query) => [
      placed(token, query),
      ...(sinks ? [show(kUnit * chosen().sink[query])] : []),
      ...view.tokens.map((_, key) => cell(query, key)),
    ]);
    addTable(place, ["query", ...(sinks ? ["sink"] : []), ...view.tokens.map(placed)], rows);
  };
  const { summary } = addFolded(parent, {}, (details) => {
    place = element("div", { parent: details });
    fill();
  });
  summary.textContent = "table: probabilities of this head";
  return fill;
}

// --- The logit lens ----------------------------------------------------------------------------------

function addLens(page, view) {
  const section = element("section", { parent: page, class: "card lens" });
  element("h2", { parent: section, text: "Logit lens" });
  element("p", { parent: section, class: "note", text: "The likeliest next token if the model stopped after each layer: the \
residual stream, read by the last norm and the head. The last column is the model's own prediction." });
  const readout = element("p", { parent: section, class: "readout", "aria-live": "polite" });
  addTable(section, ["token", ...view.stages, "next"], view.tokens.map((token, t) => [
    placed(token, t),
    ...view.stages.map((_, stage) => `${view.guesses[stage][t][0].token}  ${percent(view.guesses[stage][t][0].p)}`),
    view.next[t],
  ]));
  const table = section.querySelector("table");
  const rows = [...table.tBodies[0].rows];
  rows.forEach((row, t) => view.stages.forEach((_, stage) => {
    const best = view.guesses[stage][t][0];
    row.cells[stage + 1].style.backgroundColor = shade(0.55 * best.p);
    if (best.token === view.next[t]) row.cells[stage + 1].classList.add("right");
  }));
  const cursor = { t: view.shown, stage: view.stages.length - 1 };
  const moveTo = (t, stage) => {
    if (t < 0 || stage < 0 || t >= rows.length || stage >= view.stages.length) return;
    rows[cursor.t].cells[cursor.stage + 1].classList.remove("chosen");
    Object.assign(cursor, { t, stage });
    rows[t].cells[stage + 1].classList.add("chosen");
    const guesses = view.guesses[stage][t].map(({ token, p }) => `${quoted(token)} ${percent(p)}`).join(", ");
    readout.textContent = `${view.stages[stage]}, after ${t} ${quoted(view.tokens[t])}: ${guesses}`;
  };
  const point = ({ target }) => {
    const cell = target.closest("tbody td");
    if (cell !== null && cell.cellIndex >= 1) moveTo(cell.parentNode.rowIndex - 1, cell.cellIndex - 1);
  };
  table.addEventListener("pointerover", point);
  table.addEventListener("click", point);
  table.tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    const move = kMoves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    moveTo(cursor.t + move[0], cursor.stage + move[1]);
    rows[cursor.t].cells[cursor.stage + 1].scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  moveTo(cursor.t, cursor.stage);
  const frame = table.parentNode;
  frame.scrollTop = rows[cursor.t].offsetTop - frame.clientHeight / 2;
}

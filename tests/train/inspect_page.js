// Put into a report by report_page_test.py: looks at the pixels of every chart, so that the test can read from the
// page whether each series was drawn.
"use strict";

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function hasColor(pixels, hex) {
  const wanted = rgb(hex);
  const kNear = 12;
  const kOpaque = 128;
  for (let i = 0; i < pixels.length; i += 4) {
    const near = wanted.every((part, c) => Math.abs(pixels[i + c] - part) <= kNear);
    if (near && pixels[i + 3] >= kOpaque) return true;
  }
  return false;
}

// Whether a series stands on the canvas: its elements have a place, and its colour is among the pixels. Bars
// that are less than two pixels long cannot be seen.
function isDrawn(drawn, pixels, i) {
  const elements = drawn.getDatasetMeta(i).data.filter((e) => Number.isFinite(e.x) && Number.isFinite(e.y));
  const large = elements.filter((e) => e.width === undefined || Math.abs(e.width) >= 2);
  const colors = [drawn.data.datasets[i].borderColor].flat();
  return elements.length > 0 && (large.length === 0 || colors.some((hex) => hasColor(pixels, hex)));
}

// Leaves on the canvas how many series of its chart have something to show, and how many of them it shows.
function inspect(canvas) {
  const drawn = Chart.getChart(canvas);
  drawn.resize();  // draws now; a busy machine may make no frame while Chromium's budget of time lasts
  const { left, top, width, height } = drawn.chartArea;  // without the legend, which has the colours too
  const area = [left, top, width, height].map((length) => Math.round(length * drawn.currentDevicePixelRatio));
  const pixels = canvas.getContext("2d").getImageData(...area).data;
  const all = drawn.data.datasets.map((_, i) => i);
  const full = all.filter((i) => drawn.data.datasets[i].data.some((p) => Number.isFinite(p?.y ?? p)));
  canvas.dataset.series = full.length;
  canvas.dataset.drawn = full.filter((i) => isDrawn(drawn, pixels, i)).length;
  canvas.dataset.outside = Object.values(drawn.scales).flatMap((scale) => ticksOutside(scale)).join(" ");
  const named = (scale) => scale.ticks.filter((tick) => tick.label).length;
  canvas.dataset.named = Object.values(drawn.scales).map(named).join(" ");
  const logarithmic = Object.values(drawn.scales).filter((scale) => scale.type === "logarithmic");
  canvas.dataset.octaves = logarithmic.flatMap((scale) => scale.ticks.map((tick) => Math.log2(tick.value))).join(" ");
  canvas.dataset.marks = (drawn.legend.legendItems ?? []).filter((item) => item.pointStyle !== "line").length;
}

// Labels that lie beside their axis.
function ticksOutside(scale) {
  const places = scale.ticks.map((_, i) => scale.getPixelForTick(i));
  const [low, high] = scale.isHorizontal() ? [scale.left, scale.right] : [scale.top, scale.bottom];
  return scale.ticks.filter((_, i) => places[i] < low - 1 || places[i] > high + 1).map((tick) => tick.label);
}

// Leaves on the canvas of a grid how many colours it has, and whether an arrow key moves its cursor.
function inspectGrid(canvas) {
  const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  canvas.dataset.colors = new Set(pixels).size;
  const readout = canvas.closest(".card").querySelector(".readout");
  if (readout === null || canvas.tabIndex !== 0) return;
  canvas.dataset.moved = ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"].some((key) => {
    const before = readout.textContent;
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
    return readout.textContent !== before;
  });
}

// Chooses every head in turn, and leaves on its button what is then said of it.
function inspectThumbnail(button) {
  button.click();
  button.dataset.chosen = button.closest(".card").querySelector(".readout").textContent;
}

document.querySelectorAll(".thumbnail").forEach(inspectThumbnail);
document.querySelectorAll(".grid canvas, .thumbnail canvas").forEach(inspectGrid);
document.querySelectorAll(".canvas canvas").forEach(inspect);
// Leaves on the page how many sentences there are in its tables, and how many run out of their frames; once all tables
// are unfolded, which takes them an event.
function inspectSentences() {
  const kSentence = 60;
  const cells = [...document.querySelectorAll(".scroll td")].filter((cell) => cell.textContent.length > kSentence);
  const right = (node) => node.getBoundingClientRect().right;
  const cut = cells.filter((cell) => right(cell) > right(cell.closest(".scroll")) + 1);
  Object.assign(document.documentElement.dataset, { sentences: cells.length, cut: cut.length });
}

setTimeout(inspectSentences, 100);
document.documentElement.dataset.ready = "";

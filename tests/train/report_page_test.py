#!/usr/bin/env python3
"""Opens reports in headless Chromium: every chart has drawn its series, no error is logged, and the numbers
that stand in the tables are those of metrics.jsonl.

usage: report_page_test.py TILEGRAD
"""

import html.parser
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

INSPECT = pathlib.Path(__file__).with_name("inspect_page.js").read_text()
TINY = ["--layers", "2", "--heads", "4", "--width", "16", "--batch", "4", "--steps", "12", "--eval-every", "4"]


def check(condition, message):
    if not condition:
        sys.exit(f"report_page_test: FAILED: {message}")


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    check(done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}")
    return done


class Page(html.parser.HTMLParser):
    """The figures and tables of a page, by title, and what else the checks look at."""

    def __init__(self, text):
        super().__init__()
        self.root, self.canvases, self.tables, self.texts, self.links = {}, {}, {}, [], []
        self.grids, self.heads = {}, []  # canvases of cells by the title above them; what is said of each head
        self.title, self.tag, self.row = None, None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tag = tag
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "html":
            self.root = attributes
        elif tag == "canvas" and "data-series" in attributes:
            self.canvases[self.title] = attributes
        elif tag == "canvas" and "data-colors" in attributes:
            self.grids.setdefault(self.title, []).append(attributes)
        elif tag == "button":
            self.heads.append(attributes["data-chosen"])
        elif tag == "table":
            self.tables[self.title] = []
        elif tag == "tr":
            self.tables[self.title].append([])
        elif tag in ("td", "th"):
            self.tables[self.title][-1].append("")

    def handle_endtag(self, tag):
        self.tag = None

    def handle_data(self, data):
        if self.tag == "h2":
            self.title = data
        elif self.tag in ("td", "th"):
            self.tables[self.title][-1][-1] += data
        elif self.tag in ("p", "dd", "h1"):
            self.texts.append(data)

    def column(self, title, name):
        """The cells of one column of a table, by those of its first column."""
        head, *rows = self.tables[title]
        return {row[0]: row[head.index(name)] for row in rows}


def open_page(file, folder):
    """The page after its script and that of the test have run, with every table unfolded."""
    browser = shutil.which("chromium")
    check(browser, "chromium is missing; ./dev setup installs it")
    inspected = folder / "inspected.html"
    inspected.write_text(file.read_text().replace("</body>", f"<script>\n{INSPECT}</script>\n</body>"))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={folder / 'browser'}", "--window-size=1200,2600", "--virtual-time-budget=10000",
         "--dump-dom", f"{inspected.as_uri()}#tables"],
        capture_output=True, text=True, timeout=240, env={**os.environ, "HOME": str(folder)})
    check(done.returncode == 0, f"chromium ended with {done.returncode}: {done.stderr}")
    logged = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    check(not logged, f"the page logged {logged}")
    page = Page(done.stdout)
    check(page.root.get("data-errors") == "0", f"errors on the page: {page.texts}")
    check("data-ready" in page.root, "the page's script has not come to its end")
    check(not page.links, f"the page refers to {page.links}")
    return page


def check_drawn(page, series_of_chart):
    check(set(page.canvases) == set(series_of_chart), f"charts are {list(page.canvases)}")
    for title, series in series_of_chart.items():
        canvas = page.canvases[title]
        counts = (canvas.get("data-series"), canvas.get("data-drawn"))
        check(counts == (str(series), str(series)), f"{title}: has and draws {counts} series, not {series}")
        check(canvas["data-outside"] == "", f"{title}: labels lie beside their axis: {canvas['data-outside']}")


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [l for l in lines if "loss" in l], [l for l in lines if "val_loss" in l]


def same(shown, value, digits=6):
    """Whether a cell shows the value with that many significant digits."""
    return float(shown) == float(f"{float(shown):.{digits}g}") and abs(float(shown) - value) <= abs(value) * 1e-5


def check_cells(what, shown, wanted):
    check(len(shown) == len(wanted), f"{what}: {len(shown)} rows, not {len(wanted)}")
    for key, value in wanted.items():
        cell = shown[str(key)]
        check(same(cell, value), f"{what}: at {key} stands {cell}, not {value}")


def check_numbers(page, folder, variants):
    differing = 0
    first = {l["step"]: l["loss"] for l in lines_of(folder / variants[0])[0]}
    for name in variants:
        steps, evaluations = lines_of(folder / name)
        column = lambda title: page.column(title, name)
        check_cells(name, column("Training loss"), {l["step"]: l["loss"] for l in steps})
        check_cells(name, column("Validation loss"), {l["step"]: l["val_loss"] for l in evaluations})
        check_cells(name, column("Accuracy"), {l["step"]: 100 * l["accuracy"] for l in evaluations})
        if name != variants[0]:
            differences = {l["step"]: abs(l["loss"] - first[l["step"]]) for l in steps}
            differing += any(differences.values())
            check_cells(name, column(f"Training loss: difference from {variants[0]}"), differences)
        heights = [float(page.column("Live memory through one training step", name)[f"{phase}, highest"])
                   for phase in ("forward", "backward", "update")]
        check(same(max(heights), steps[1]["peak_bytes"] / 2**20), f"{name}: the timeline's heights are {heights}")
        highest = max(steps, key=lambda l: l["peak_bytes"])
        head, *rows = page.tables["Peak of tracked memory"]
        row = next(row for row in rows if row[0] == name)
        check_cells(name, dict(zip(head[1:], row[1:])), {c: b / 2**20 for c, b in highest["at_peak"].items()})
        time = page.column("Time of a step", "ms per step")[name]
        check(same(time, statistics.median_high(l["ms"] for l in steps)), f"{name}: {time} ms per step")
        loss = page.column("Results", "val loss")[name]
        check(loss == f"{evaluations[-1]['val_loss']:.4f}", f"{name}: the validation loss is {loss}")
    return differing


def test_comparison(tilegrad, folder):
    """compare writes a page with all charts and numbers of its variants."""
    compared = folder / "compared"
    run(tilegrad, "compare", "--task", "sort", *TINY, "--out", compared, "--quiet")
    variants = [row["variant"] for row in json.loads((compared / "compare.json").read_text())]
    page = open_page(compared / "report.html", folder)
    differing = check_numbers(page, compared, variants)
    check_drawn(page, {
        "Training loss": 5, "Validation loss": 5, "Accuracy": 5,
        "Training loss: difference from mha-naive": differing, "Peak of tracked memory": 5,
        "Live memory through one training step": 5, "Time of a step": 1, "Speed": 1})
    check(any(text.startswith("tilegrad compare --task sort --layers 2") for text in page.texts),
          f"the command is missing: {page.texts}")
    return compared


def test_hostile_names_and_damage(tilegrad, folder, compared):
    """A name that would end the script is text, and a damaged run is shown with a warning."""
    text = folder / "<" / "script><img src=x onerror=fail()>&amp;{{page.js}}"
    text.parent.mkdir()
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    damaged = folder / "<b>"
    run(tilegrad, "train", "--text", text, *TINY, "--context", "8", "--out", damaged, "--quiet")
    metrics = damaged / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([lines[0], "{\"step\": nonsense", *lines[2:]]) + "\n{\"step\": 13, \"lo")
    out = folder / "report.html"
    done = run(tilegrad, "report", compared / "mha-flash", damaged, "--out", out)
    warning = f"{metrics}: 1 damaged line, the first is line 2; the last line was written only in part; left out"
    check(warning in done.stderr, f"no warning on the terminal: {done.stderr}")
    page = open_page(out, folder)
    check(warning in page.texts, f"no warning on the page: {page.texts}")
    check(any(str(text) in shown for shown in page.texts), f"the text's name is not shown: {page.texts}")
    check(len(page.column("Training loss", "<b>")) == 12, "the other run's steps are missing")
    check(page.column("Training loss", "<b>")["2"] == "", "a damaged line is shown")
    check_drawn(page, {
        "Training loss": 2, "Validation loss": 2, "Accuracy": 2, "Training loss: difference from mha-flash": 1,
        "Peak of tracked memory": 5, "Live memory through one training step": 2, "Time of a step": 1, "Speed": 1})


def check_grid(what, grid, colors):
    check(int(grid["data-colors"]) >= colors, f"{what}: has {grid['data-colors']} colours")
    check(grid.get("data-moved") == "true", f"{what}: the arrow keys do not move its cursor")


def test_look(tilegrad, folder):
    """look draws a map for each head, lets one choose, and shows the numbers and the lens as tables."""
    trained = folder / "looked-at"
    run(tilegrad, "train", "--task", "recall", *TINY, "--kv-heads", "2", "--window", "9", "--sinks", "--out", trained,
        "--quiet")
    out = folder / "look.html"
    done = run(tilegrad, "look", trained, "--example", "2", "--out", out)
    check("has the highest induction score" in done.stdout, f"no finding on the terminal: {done.stdout}")
    page = open_page(out, folder)
    report = json.loads(out.read_text().split('id="report">')[1].split("</script>")[0])
    view, lens = report["attention"], report["lens"]
    tokens = view["tokens"]
    *thumbnails, grid = page.grids["Attention"]
    check(len(thumbnails) == 8 and all(int(t["data-colors"]) > 3 for t in thumbnails), f"thumbnails: {thumbnails}")
    check_grid("the map", grid, 5)
    check(len(page.heads) == 8 and all(said.startswith("query ") and "the sink takes" in said for said in page.heads),
          f"of the heads is said {page.heads}")
    check(sum("share K/V head" in text for text in page.texts) == 4, "the heads that share K/V are not framed")
    head, *rows = page.tables["Attention"]
    check(head[1] == "sink" and len(rows) == len(tokens), f"the table of the map: {head}")
    last = view["layers"][1][3]["p"]  # the head that was chosen last
    for query, row in enumerate(rows):
        first = max(0, query - 9)
        for key, cell in enumerate(row[2:]):
            wanted = last[query][key - first] if first <= key <= query else None
            check(cell == "masked" if wanted is None else float(cell) == wanted / 1e4, f"cell {query}, {key}: {cell}")
    head, *rows = page.tables["Logit lens"]
    check(head[1:] == ["embedding", "layer 1", "layer 2", "next"] and len(rows) == len(tokens), f"the lens: {head}")
    for t, row in enumerate(rows):
        check(row[3].startswith(lens["guesses"][2][t][0]["token"] + " "), f"the lens at {t}: {row}")


def test_flash_lab(tilegrad, folder):
    """lab flash draws the roofline, the walk over tiles, and times by sizes of tiles."""
    out = folder / "lab"
    run(tilegrad, "lab", "flash", "--seq", "96", "--d", "8", "--heads", "1", "--causal", "--repeats", "1", "--tile-sweep",
        "--out", out)
    page = open_page(out / "report.html", folder)
    check_drawn(page, {"Roofline": 5})
    marks = page.canvases["Roofline"]["data-marks"]
    check(marks == "4", f"the legend of the roofline has {marks} points, not those of two passes of two kernels")
    for name in ("The walk over tiles, forward", "The walk over tiles, backward"):
        check_grid(name, page.grids[name][0], 3)
    for name in ("Time by the size of a tile, forward", "Time by the size of a tile, forward and backward"):
        check_grid(name, page.grids[name][0], 4)
        check(len(page.tables[name]) == 4, f"{name}: the table has {len(page.tables[name])} rows")


def test_flash_sweep(tilegrad, folder):
    """A sweep's logarithmic axes end where its points do, and name a few lengths."""
    out = folder / "sweep"
    run(tilegrad, "lab", "flash", "--seq", "64", "--d", "8", "--heads", "2", "--causal", "--repeats", "1", "--sweep",
        "--memory-limit", "1MiB", "--out", out)
    page = open_page(out / "report.html", folder)
    check_drawn(page, {"Roofline": 5, "Time": 2, "Tracked memory": 2})
    named = int(page.canvases["Time"]["data-named"].split()[0])
    check(2 <= named <= 6, f"{named} lengths have names")
    lengths = page.canvases["Tracked memory"]["data-octaves"].split()[:named]
    check(all(float(power).is_integer() for power in lengths), f"lengths that have names are 2 to the {lengths}")


def test_whys(tilegrad, folder):
    """lab checkpoint tells why segments need more than blocks, in sentences that wrap."""
    out = folder / "checkpoint"
    run(tilegrad, "lab", "checkpoint", "--layers", "4", "--seq", "32", "--width", "16", "--heads", "1", "--batch", "1",
        "--repeats", "1", "--out", out)
    page = open_page(out / "report.html", folder)
    check("times its output" in page.tables["Why"][1][1], f"no reason is given: {page.tables['Why']}")
    check(page.root["data-cut"] == "0", f"{page.root['data-cut']} of {page.root['data-sentences']} sentences are cut")


def main():
    tilegrad = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        compared = test_comparison(tilegrad, folder)
        test_hostile_names_and_damage(tilegrad, folder, compared)
        test_look(tilegrad, folder)
        test_flash_lab(tilegrad, folder)
        test_flash_sweep(tilegrad, folder)
        test_whys(tilegrad, folder)
    print("report_page_test: passed")


if __name__ == "__main__":
    main()

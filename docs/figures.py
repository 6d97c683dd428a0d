#!/usr/bin/env python3
"""Draws the figures of flash_attention.md and of the book, next to this script: `python3 docs/figures.py`."""

import functools
import math
import pathlib
import random
import struct

FOLDER = pathlib.Path(__file__).parent
INK, GREY, BLUE, ORANGE = "#1f2933", "#d9dee4", "#9cc3e6", "#f5b971"


class Drawing:
    def __init__(self, width, height, title):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="sans-serif" font-size="13" fill="{INK}" role="img">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def rect(self, x, y, width, height, fill, stroke="white"):
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{stroke}"/>'
        )

    def dot(self, x, y, radius=2.2):
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius}"/>')

    def line(self, points, color=INK, width=1.0):
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="{width}"/>')

    def text(self, x, y, text, anchor="start", color=INK, turned=False):
        turn = f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{color}"{turn}>{text}</text>')

    def save(self, name):
        (FOLDER / name).write_text("\n".join(self.parts + ["</svg>"]) + "\n")


def causal_tiles():
    """Which tiles of the score matrix a causal mask skips, cuts, and leaves whole."""
    queries, keys, tile, cell, left, top = 20, 26, 4, 14, 60, 40
    drawing = Drawing(640, top + queries * cell + 20, "Tiles of a causal mask: skipped, cut and full")

    def visible(query, key):  # the last query sees the last key
        return key <= query + keys - queries

    counts = {GREY: 0, ORANGE: 0, BLUE: 0}
    for q0 in range(0, queries, tile):
        for k0 in range(0, keys, tile):
            rows, columns = range(q0, min(q0 + tile, queries)), range(k0, min(k0 + tile, keys))
            seen = [visible(i, j) for i in rows for j in columns]
            color = BLUE if all(seen) else ORANGE if any(seen) else GREY
            counts[color] += 1
            drawing.rect(left + k0 * cell, top + q0 * cell, len(columns) * cell, len(rows) * cell, color)
            for i in rows:
                for j in filter(lambda key: visible(i, key), columns):
                    drawing.dot(left + (j + 0.5) * cell, top + (i + 0.5) * cell)
    drawing.text(left + keys * cell / 2, top - 14, f"{keys} keys, in tiles of {tile}", "middle")
    drawing.text(left - 18, top + queries * cell / 2, f"{queries} queries, in tiles of {tile}", "middle", turned=True)
    legend = [
        (BLUE, "full", "no mask to look at"),
        (ORANGE, "cut", "masked inside the tile"),
        (GREY, "skipped", "never computed"),
    ]
    for n, (color, name, meaning) in enumerate(legend):
        x, y = left + keys * cell + 24, top + 20 + n * 50
        drawing.rect(x, y - 12, 16, 16, color)
        drawing.text(x + 24, y, f"{name}: {counts[color]} tiles")
        drawing.text(x + 24, y + 17, meaning, color="#5f6b76")
    drawing.dot(left + keys * cell + 32, top + 172)
    drawing.text(left + keys * cell + 48, top + 176, "a visible pair")
    drawing.save("causal_tiles.svg")


def attention_memory():
    """What one call keeps for its backward pass, over the number of tokens."""
    heads, dim, number = 8, 64, 4  # f32

    def naive(t):  # q, k, v, P, lse
        return number * heads * (3 * t * dim + t * t + t)

    def flash(t):  # q, k, v, out, lse
        return number * heads * (4 * t * dim + t)

    left, top, width, height = 80, 20, 420, 260
    lengths, low, high = [2**n for n in range(6, 15)], 2**18, 2**34
    drawing = Drawing(680, top + height + 56, "Memory that naive and flash attention keep, over the number of tokens")

    def place(t, size):
        x = left + width * math.log2(t / lengths[0]) / math.log2(lengths[-1] / lengths[0])
        return x, top + height * (1 - math.log2(size / low) / math.log2(high / low))

    for exponent in range(18, 35, 4):
        _, y = place(lengths[0], 2**exponent)
        drawing.line([(left, y), (left + width, y)], GREY)
        unit, power = ("KiB", 10) if exponent < 20 else ("MiB", 20) if exponent < 30 else ("GiB", 30)
        drawing.text(left - 8, y + 4, f"{2 ** (exponent - power)} {unit}", "end")
    for t in lengths:
        drawing.text(place(t, low)[0], top + height + 20, str(t), "middle")
    drawing.text(left + width / 2, top + height + 44, f"tokens T ({heads} heads, D = {dim}, float)", "middle")
    for keeps, color, name in ((naive, "#c2571a", "naive: q, k, v, P, LSE"), (flash, "#1f6fb2", "flash: q, k, v, out, LSE")):
        drawing.line([place(t, keeps(t)) for t in lengths], color, 2.5)
        x, y = place(lengths[-1], keeps(lengths[-1]))
        drawing.text(x + 8, y + 4, name, color=color)
    drawing.save("attention_memory.svg")


class Axes:
    """A chart with logarithmic axes; `ticks` are pairs of a value and its text."""

    def __init__(self, drawing, x_range, y_range, left=80, top=20, width=420, height=260):
        self.drawing, self.x_range, self.y_range = drawing, x_range, y_range
        self.left, self.top, self.width, self.height = left, top, width, height

    def place(self, x, y):
        def part(value, ends):
            return math.log(value / ends[0]) / math.log(ends[1] / ends[0])

        return self.left + self.width * part(x, self.x_range), self.top + self.height * (1 - part(y, self.y_range))

    def ticks(self, x_ticks, y_ticks, x_title):
        for value, text in y_ticks:
            _, y = self.place(self.x_range[0], value)
            self.drawing.line([(self.left, y), (self.left + self.width, y)], GREY)
            self.drawing.text(self.left - 8, y + 4, text, "end")
        for value, text in x_ticks:
            self.drawing.text(self.place(value, self.y_range[0])[0], self.top + self.height + 20, text, "middle")
        self.drawing.text(self.left + self.width / 2, self.top + self.height + 44, x_title, "middle")

    def curve(self, points, color, name, shift=4):
        placed = [self.place(x, y) for x, y in points]
        self.drawing.line(placed, color, 2.5)
        self.drawing.text(placed[-1][0] + 8, placed[-1][1] + shift, name, color=color)


RED, DARK_BLUE, GREEN, SOFT = "#c2571a", "#1f6fb2", "#3d8c40", "#5f6b76"


def online_softmax():
    """The running maximum and sum of one row, key by key, and the factors by which old sums shrink."""
    draw = random.Random(4)
    scores = [draw.gauss(0, 1.2) + 0.05 * i for i in range(48)]
    drawing, left, bottom, step, unit = Drawing(680, 300, "Online softmax: running maximum"), 60, 210, 11, 32
    m, rescaled = -math.inf, []
    line = []
    for i, s in enumerate(scores):
        x = left + i * step
        drawing.rect(x, bottom - unit * max(s, 0), step - 3, unit * abs(s), BLUE)
        if s > m:
            rescaled.append((i, math.exp(m - s)))
            m = s
        line += [(x, bottom - unit * m), (x + step, bottom - unit * m)]
    drawing.line(line, RED, 2.5)
    drawing.line([(left, bottom), (left + len(scores) * step, bottom)])
    for n, (i, alpha) in enumerate(rescaled[1:]):
        x, y = left + (i + 0.5) * step, 272 + 14 * (n % 2)  # neighbours would overlap
        drawing.line([(x, 252), (x, y - 12)], RED, 2)
        drawing.text(x, y, f"{alpha:.2f}", "middle", RED)
    drawing.text(left + 48 * step + 8, bottom - unit * m + 4, "m", color=RED)
    drawing.text(left - 8, bottom - unit, "s", "end")
    drawing.text(left + 48 * step + 8, 288, "α", color=RED)
    drawing.save("online_softmax.svg")


def backward_tiles():
    """Who adds to dQ when: each column of tiles is a task, each row of tiles receives in the order of its numbers."""
    tiles, cell, left, top = 6, 40, 150, 50
    drawing = Drawing(640, top + tiles * cell + 50, "Backward: tasks own columns, rows of dQ are added to in order")
    for row in range(tiles):
        for column in range(row + 1):
            drawing.rect(left + column * cell, top + row * cell, cell, cell, ORANGE if row == column else BLUE)
            drawing.text(left + (column + 0.5) * cell, top + (row + 0.5) * cell + 5, str(column), "middle")
    for column in range(tiles):
        drawing.text(left + (column + 0.5) * cell, top - 10, f"k{column}", "middle")
    for row in range(tiles):
        drawing.text(left - 10, top + (row + 0.5) * cell + 5, f"dQ of tile {row}", "end")
    drawing.text(left, top + tiles * cell + 24, "a column is a task and owns dK, dV of its keys")
    drawing.text(left + tiles * cell + 20, top + 20, "the number in a tile: its turn")
    drawing.text(left + tiles * cell + 20, top + 38, "to add to the dQ of its row")
    drawing.save("backward_tiles.svg")


def masks():
    """What a query sees under each mask: rows are queries, columns are keys."""
    queries, keys, cell = 6, 9, 13

    def packed(i, j):
        return (i < 2) == (j < 4) and j <= (i + 2 if i < 2 else i + 3)

    grids = [("causal, bottom right", lambda i, j: j <= i + keys - queries),
             ("causal, top left", lambda i, j: j <= i),
             ("window of 2, causal", lambda i, j: i + 3 - 2 <= j <= i + 3),
             ("key length 6, causal", lambda i, j: j < 6 and j <= i + 6 - queries),
             ("two packed sequences", packed)]  # fmt: skip
    drawing = Drawing(40 + len(grids) * 146, 40 + queries * cell + 20, "Masks: which keys each query sees")
    for n, (name, visible) in enumerate(grids):
        x, y = 20 + n * 146, 34
        drawing.text(x, 22, name)
        for i in range(queries):
            for j in range(keys):
                drawing.rect(x + j * cell, y + i * cell, cell, cell, BLUE if visible(i, j) else GREY)
    drawing.save("masks.svg")


def heads():
    """Which key/value head a query head reads."""
    drawing = Drawing(680, 150, "MHA, GQA and MQA: query heads above, key/value heads below")
    for n, (name, kv_heads) in enumerate((("MHA", 8), ("GQA, 2 groups", 2), ("MQA", 1))):
        x, width = 20 + n * 225, 24
        drawing.text(x + 4 * width, 20, name, "middle")
        for h in range(8):
            shared = h // (8 // kv_heads)
            below = x + (shared + 0.5) * 8 * width / kv_heads
            drawing.line([(x + (h + 0.5) * width, 60), (below, 110)])
            drawing.rect(x + h * width + 2, 36, width - 4, 24, BLUE)
        for h in range(kv_heads):
            drawing.rect(x + (h + 0.5) * 8 * width / kv_heads - width / 2 + 2, 110, width - 4, 24, ORANGE)
    drawing.save("heads.svg")


def tape():
    """The tape grows during forward, and is taken from its end during backward."""
    ops = ["embed", "norm", "linear", "attention", "linear", "add", "cross entropy"]
    drawing, width = Drawing(680, 170, "A tape: recorded from left to right, taken back from the right"), 90
    for n, op in enumerate(ops):
        x = 20 + n * (width + 4)
        drawing.rect(x, 50, width, 36, BLUE)
        drawing.text(x + width / 2, 73, op, "middle")
    end = 20 + len(ops) * (width + 4)
    drawing.line([(20, 34), (end - 4, 34), (end - 12, 29)], DARK_BLUE, 2)
    drawing.text(20, 24, "forward: each op pushes its rule, with what it saved", color=DARK_BLUE)
    drawing.line([(end - 4, 104), (20, 104), (28, 109)], RED, 2)
    drawing.text(20, 126, "backward: take the last rule, run it, destroy it; what it saved is free", color=RED)
    drawing.save("tape.svg")


def checkpoint_tradeoff():
    """A chain of equal blocks: peak memory against blocks that run again, for even segments and at best."""
    layers = 32

    @functools.cache
    def again(n, room):
        """The least runs again of n blocks, if the values of `room` blocks fit, one input being kept already."""
        if n <= room:
            return 0  # everything is kept
        if room <= 1:
            return n * (n - 1) // 2
        # The first j run without being kept but for their end; the rest is done with one place less, then the first j.
        return min(j + again(n - j, room - 1) + again(j, room) for j in range(1, n))

    drawing = Drawing(680, 330, "Memory against blocks that run again")
    axes = Axes(drawing, (3, 32), (1, 300))
    axes.ticks([(n, str(n)) for n in (3, 4, 6, 8, 12, 16, 24, 32)], [(n, str(n)) for n in (1, 3, 10, 30, 100, 300)],
               f"blocks whose values are kept at most ({layers} blocks)")
    axes.curve([(room, max(1, again(layers, room))) for room in range(3, layers)], DARK_BLUE, "best schedule", 14)
    points = sorted({(math.ceil(layers / k) + k - 1, layers - math.ceil(layers / k)) for k in range(1, layers + 1)})
    best = [p for p in points if all(q[0] > p[0] or q[1] >= p[1] for q in points)]
    for x, y in best:
        if y > 0:
            drawing.dot(*axes.place(x, y), 4)
    drawing.text(axes.left + 150, axes.top + 40, "dots: even segments, the last one kept")
    drawing.save("checkpoint_tradeoff.svg")


def summation():
    """The relative error of a float sum of n numbers in (0, 1): one by one, and as a sum of sums of 64."""

    def f32(x):
        return struct.unpack("f", struct.pack("f", x))[0]

    def one_by_one(numbers):
        return functools.reduce(lambda a, b: f32(a + b), numbers, 0.0)

    def of_tiles(numbers):
        return one_by_one([one_by_one(numbers[i : i + 64]) for i in range(0, len(numbers), 64)])

    lengths, draw = [2**e for e in range(6, 17)], random.Random(1)
    errors = {one_by_one: [], of_tiles: []}
    for n in lengths:
        tries = [[f32(draw.random()) for _ in range(n)] for _ in range(8)]
        for method, of_method in errors.items():
            of_method.append((n, max(abs(method(t) - math.fsum(t)) / math.fsum(t) for t in tries)))
    drawing = Drawing(680, 330, "Error of sums in float")
    axes = Axes(drawing, (lengths[0], lengths[-1]), (1e-8, 1e-4))
    axes.ticks([(n, str(n)) for n in lengths[::2]], [(10.0**e, f"1e{e}") for e in range(-8, -3)],
               "numbers to add; largest relative error of 8 sums")
    axes.curve(errors[one_by_one], RED, "one by one")
    axes.curve(errors[of_tiles], DARK_BLUE, "sum of sums of 64")
    drawing.save("summation.svg")


def attention_traffic():
    """Bytes between memory and cache in one forward pass of a head, by the model of attention_cost.h."""
    dim, number, cache = 64, 4, 2**20
    lengths = [2**e for e in range(8, 16)]

    def tensors(t):
        return number * 4 * t * dim

    def naive(t):
        return tensors(t) + 4 * number * t * t

    def flash(t):
        return tensors(t) + 2 * number * t * t * dim * dim / (cache / number)

    drawing = Drawing(680, 330, "Memory traffic of naive and flash attention")
    axes = Axes(drawing, (lengths[0], lengths[-1]), (2**17, 2**35))
    units = [(2**20, "1 MiB"), (2**24, "16 MiB"), (2**28, "256 MiB"), (2**32, "4 GiB")]
    axes.ticks([(t, str(t)) for t in lengths], units, f"tokens T (one head, D = {dim}, float, L2 of 1 MiB)")
    axes.curve([(t, naive(t)) for t in lengths], RED, "naive")
    axes.curve([(t, flash(t)) for t in lengths], DARK_BLUE, "flash")
    axes.curve([(t, tensors(t)) for t in lengths], SOFT, "q, k, v, out alone", 16)
    drawing.save("attention_traffic.svg")


for draw_figure in (causal_tiles, attention_memory, online_softmax, backward_tiles, masks, heads, tape, checkpoint_tradeoff,
                    summation, attention_traffic):  # fmt: skip
    draw_figure()

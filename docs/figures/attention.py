"""Attention: its softmax, its masks and tiles, its heads."""

import math
import random

from .drawing import BLUE, GREY, ORANGE, RED, Drawing


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


FIGURES = [online_softmax, causal_tiles, backward_tiles, masks, heads]

#!/usr/bin/env python3
"""Draws the figures of docs/flash_attention.md, next to this script: `python3 docs/figures.py`."""

import math
import pathlib

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


causal_tiles()
attention_memory()

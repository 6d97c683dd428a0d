"""What the figures are drawn with: shapes, text, and logarithmic axes, as SVG."""

import math
import pathlib

FOLDER = pathlib.Path(__file__).parent.parent
INK, GREY, BLUE, ORANGE = "#1f2933", "#d9dee4", "#9cc3e6", "#f5b971"
RED, DARK_BLUE, SOFT = "#c2571a", "#1f6fb2", "#5f6b76"


class Drawing:
    """One picture, as the parts of an SVG document."""

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

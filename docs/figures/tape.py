"""The tape, and what checkpoints cost."""

import functools
import math

from .drawing import BLUE, DARK_BLUE, RED, Axes, Drawing


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


FIGURES = [tape, checkpoint_tradeoff]

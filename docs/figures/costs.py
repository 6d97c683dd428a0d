"""What attention keeps and moves, and how sums round."""

import functools
import math
import random
import struct

from .drawing import DARK_BLUE, GREY, RED, SOFT, Axes, Drawing


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


FIGURES = [attention_memory, attention_traffic, summation]

#!/usr/bin/env python3
"""Times the matrix products of the presets' linear layers by OpenBLAS, by tilegrad and, if it was found, by oneDNN.

`./dev bench products` builds what it needs and runs it; --help lists the choices. All three take turns in one process,
on the same matrices, and their results are compared first. The fastest repetition counts, the mean of as many calls as
fill 5 ms. Shares are those of the peak of fused multiply-adds, measured in between on as many threads. A ratio is the
time of the faster of the others divided by tilegrad's.
"""

import argparse
import pathlib

from presets import add_preset_option, chosen
from results import (NAME, ROOT, Child, Parser, busy_mark, note_busy, processors, thread_count, whole_number,
                     write_csv)

COMMAND = "./dev bench products"
LIBRARIES = ("openblas", "tilegrad", "onednn")
FORMULAS = {"forward": "a bᵀ", "dx": "a b", "dw": "aᵀ b"}
SQUARE = ("dx", 1024, 1024, 1024)
COLUMNS = ("pass", "m", "n", "k", "threads", "peak_gflops", "others", *(f"{name}_ms" for name in LIBRARIES),
           *(f"{name}_of_peak" for name in LIBRARIES), "ratio", "layers")
HEADINGS = ("product", "m x n x k", "threads", *(f"{name} ms" for name in LIBRARIES),
            *(f"{name[:8]} of peak" for name in LIBRARIES), "ratio", "layers")
WIDTHS = (7, 18, 7, 11, 11, 11, 16, 16, 16, 5, 0)


def parse_options(arguments=None):
    parser = Parser(prog=COMMAND, description=__doc__.split("\n")[0],
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_preset_option(parser)
    parser.add_argument("--threads", type=thread_count, nargs="+", default=sorted({1, processors()}), metavar="N")
    parser.add_argument("--turns", type=whole_number, default=5, metavar="N", help="of each library")
    parser.add_argument("--csv", type=pathlib.Path, default=ROOT / f"build/bench/{NAME}.csv", metavar="FILE",
                        help="where the figures go, unrounded")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/bench/tilegrad_products", metavar="FILE",
                        help="the program that multiplies")
    options = parser.parse_args(arguments)
    options.presets = chosen(parser, options.presets)
    return options


def rows(presets):
    """(pass, m, n, k) -> whose product it is, and a square one as the yardstick."""
    found = {}
    for preset in presets:
        for key, layers in preset.products().items():
            found.setdefault(key, []).append(f"{preset.name}: {', '.join(layers)}")
    found.setdefault(SQUARE, []).append("square")
    return {key: "; ".join(layers) for key, layers in found.items()}


def figures(key, threads, layers, answer):
    """One line of the table from what the program measured."""
    direction, m, n, k = key
    ms, peak = answer["ms"], answer["peak_gflops"]
    line = {"pass": direction, "m": m, "n": n, "k": k, "threads": threads, "peak_gflops": peak, "layers": layers,
            "others": answer["others"]}
    for name, value in ms.items():
        line |= {f"{name}_ms": value, f"{name}_of_peak": 2 * m * n * k / (1e6 * value * peak)}
    line["ratio"] = min(value for name, value in ms.items() if name != "tilegrad") / ms["tilegrad"]
    return line


def cells(line):
    def text(name, digits):
        value = line.get(name)
        return "-" if value is None else f"{value:.{digits}f}"

    return (FORMULAS[line["pass"]], f"{line['m']} x {line['n']} x {line['k']}", str(line["threads"]),
            *(text(f"{name}_ms", 4) for name in LIBRARIES), *(text(f"{name}_of_peak", 3) for name in LIBRARIES),
            text("ratio", 2), line["layers"])


def aligned(texts):
    last = len(WIDTHS) - 1
    return "  ".join(text.ljust(width) if i in (0, last) else text.rjust(width)
                     for i, (text, width) in enumerate(zip(texts, WIDTHS)))


def main():
    options = parse_options()
    lines = []
    with Child([str(options.program), str(options.turns)], COMMAND) as child:
        about = child.about
        print(f"{about['processor']}, tilegrad on {about['simd']}, OpenBLAS for {about['openblas']}, f32")
        print(aligned(HEADINGS))
        for threads in options.threads:
            for key, layers in rows(options.presets).items():
                answer = child.ask(" ".join(map(str, (*key, threads))))
                lines.append(figures(key, threads, layers, answer))
                print(aligned(cells(lines[-1])) + busy_mark(lines[-1]), flush=True)
    for threads in options.threads:
        peak = max(line["peak_gflops"] for line in lines if line["threads"] == threads)
        print(f"The peak on {threads} threads: {peak:.1f} GFLOP/s.")
    note_busy(lines)
    write_csv(options.csv, COLUMNS, lines)


if __name__ == "__main__":
    main()

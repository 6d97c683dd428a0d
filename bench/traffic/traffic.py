#!/usr/bin/env python3
"""The bytes that attention moves between memory and cache, by the model and as valgrind's simulator of caches counts them.

`./dev bench traffic` builds what it needs and runs it; --help lists the choices. Nothing is timed, so a machine may be
busy meanwhile. Each pass begins with empty caches and runs on one thread. Its bytes are the lines of 64 bytes that the
last-level cache fetched and wrote back, less those of a run without it.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINE = 64  # bytes
KERNELS = ("naive", "flash")


def lines_moved(report):
    """Lines that the last-level cache fetched, and dirty ones that it wrote back, as callgrind reports them."""
    names, values = (re.search(rf"{word} *: ([\w ]+)", report) for word in ("Events", "Collected"))
    if not names or not values:
        sys.exit(f"traffic: valgrind reported no events:\n{report.strip()}")
    events = dict(zip(names[1].split(), map(int, values[1].split())))
    return (sum(events[name] for name in ("ILmr", "DLmr", "DLmw")),
            sum(events[name] for name in ("ILdmr", "DLdmr", "DLdmw")))


def run(command):
    # Names are bound at the start, which is the same in all runs, and not at the first call of each.
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LD_BIND_NOW": "1"})
    if result.returncode != 0:
        sys.exit(f"traffic: {' '.join(map(str, command))}:\n{result.stderr.strip()}")
    return result


def simulate(options, kernel, call, tokens):
    """The lines of one run, fetched and written back."""
    caches = [f"--I1={options.l1},8,{LINE}", f"--D1={options.l1},8,{LINE}", f"--LL={options.ll},8,{LINE}"]
    command = ["valgrind", "--tool=callgrind", "--cache-sim=yes", "--simulate-wb=yes", *caches,
               "--callgrind-out-file=/dev/null", options.program]
    return lines_moved(run([*command, kernel, call, str(tokens), str(options.head_size), str(options.ll)]).stderr)


def passes(none, forward, step):
    """The bytes of the forward and of the backward pass, each fetched and written back."""

    def less(a, b):
        return tuple(LINE * (x - y) for x, y in zip(a, b))

    return {"forward": less(forward, none), "backward": less(step, forward)}


def model(options, tokens):
    """The bytes of (kernel, pass), by moved_bytes of train/measure/attention_cost.h."""
    text = run([options.program, "model", "-", str(tokens), str(options.head_size), str(options.ll)]).stdout
    return {(kernel, name): float(size) for kernel, name, size in map(str.split, text.splitlines())}


def row(tokens, kernel, name, expected, fetched, written):
    cells = [f"{size / 2**20:.2f}" for size in (expected, fetched + written, fetched, written)]
    return [str(tokens), name, kernel, *cells, f"{(fetched + written) / expected:.2f}"]


def line(cells):
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(prog="./dev bench traffic", description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 512, 1024], metavar="T")
    parser.add_argument("--head-size", type=int, default=64, metavar="D")
    parser.add_argument("--l1", type=int, default=2**15, help="bytes of a first-level cache (default: %(default)s)")
    parser.add_argument("--ll", type=int, default=2**19, help="bytes of the last-level cache (default: %(default)s)")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/bench/tilegrad_one_pass")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("traffic: valgrind is missing; apt-get install valgrind")
    print(f"One head of size {options.head_size}, float; L1 {options.l1} bytes, last level {options.ll} bytes, "
          f"both 8-way, lines of {LINE} bytes.\n")
    print(line(["T", "pass", "kernel", "model, MiB", "simulated, MiB", "fetched", "written back", "simulated / model"]))
    print("|---|---|---|--:|--:|--:|--:|--:|")
    for tokens in options.tokens:
        expected = model(options, tokens)
        none = simulate(options, "-", "none", tokens)
        moved = {kernel: passes(none, *(simulate(options, kernel, call, tokens) for call in ("forward", "step")))
                 for kernel in KERNELS}
        for name in ("forward", "backward"):
            for kernel in KERNELS:
                print(line(row(tokens, kernel, name, expected[kernel, name], *moved[kernel][name])), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Times whole training steps of tilegrad and of PyTorch: the same model, weights and batch, in the same run.

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    ./dev bench steps                           # or: bench/peers/torch_training.py --help

A step is forward, loss, backward, clipping and AdamW, in f32. Each side is a process of its own. tilegrad's draws the
weights and the batch, PyTorch's reads them, and the losses of the first steps must agree. Then they take turns:
tilegrad, PyTorch, tilegrad, PyTorch. A time is that of the fastest step of all turns, a ratio PyTorch's time divided by
tilegrad's.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import pathlib
import statistics
import sys
import tempfile

from presets import add_preset_option, chosen
from results import (NAME, ROOT, Child, Parser, busy_mark, duration, note_busy, processors, thread_count, whole_number,
                     write_csv)

COMMAND = "./dev bench steps"
FIRST_STEPS = 3  # whose losses are compared; they also warm up
FIRST_LOSS, LATER_LOSSES = 1e-5, 1e-3  # how far those may differ, relatively
SIDES = ("tilegrad", "eager", "compiled")
CHECKPOINTS = ("none", "elementwise", "block")
COLUMNS = ("preset", "checkpoint", "threads", "parameters", "operations", "peak_gflops", "others",
           *(f"{side}_{what}" for side in SIDES for what in ("ms", "median_ms", "of_peak", "rss")),
           "tilegrad_tracked", "ratio", "median_ratio", "loss_difference")


def parse_options(arguments=None):
    parser = Parser(prog=COMMAND, description=__doc__.split("\n")[0],
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_preset_option(parser)
    parser.add_argument("--threads", type=thread_count, default=processors(), metavar="N", help="of each side")
    parser.add_argument("--compile", action="store_true",
                        help="PyTorch with torch.compile as well; the faster one is what tilegrad is compared with")
    parser.add_argument("--checkpoint", action="store_true",
                        help="also with norms and activations computed again, on tilegrad's side, and with every block "
                        "but the last checkpointed, on both")
    parser.add_argument("--alone", action="store_true", help="tilegrad without PyTorch")
    parser.add_argument("--turns", type=whole_number, default=6, metavar="N", help="of each side")
    parser.add_argument("--seconds", type=duration, default=0.5, metavar="S", help="of a turn, and at least one step")
    parser.add_argument("--csv", type=pathlib.Path, default=ROOT / f"build/bench/{NAME}.csv", metavar="FILE",
                        help="where the figures go, unrounded")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/bench/tilegrad_training_steps",
                        metavar="FILE", help="the program that trains with tilegrad")
    options = parser.parse_args(arguments)
    if options.alone and options.compile:
        parser.error("--compile is about PyTorch, which --alone leaves out")
    options.presets = chosen(parser, options.presets)
    return options


# --- Measurement ------------------------------------------------------------------------------------------------


class Side:
    """One process that trains, and what it has said so far."""

    def __init__(self, name, command, stack):
        self.name = name
        self.child = stack.enter_context(Child(command, COMMAND))
        self.times, self.last, self.others = [], {}, 0

    def first_losses(self):
        self.last = self.child.ask(FIRST_STEPS)
        self.times = self.last["ms"][1:]  # the first one allocates, or compiles
        return self.last["losses"]

    def turn(self, seconds):
        steps = max(1, math.ceil(1e3 * seconds / min(self.times)))
        self.last = self.child.ask(steps)
        self.times += self.last["ms"]
        self.others = max(self.others, self.last.get("others", 0))  # as tilegrad's process sees it


def start(options, preset, checkpoint, folder, stack):
    """The processes, each with its model built."""
    weights = folder / "model.safetensors"
    settings = {"layers": preset.layers, "heads": preset.heads, "width": preset.width, "context": preset.context,
                "batch": preset.batch, "vocabulary": preset.vocabulary, "checkpoint": checkpoint,
                "threads": options.threads}
    sides = [Side("tilegrad", [str(options.program), json.dumps(settings), str(weights)], stack)]
    names = () if options.alone else SIDES[1:] if options.compile else SIDES[1:2]
    for name in names:
        script = str(pathlib.Path(__file__).with_name("torch_transformer.py"))
        text = json.dumps(settings | {"compile": name == "compiled"})
        sides.append(Side(name, [sys.executable, script, text, str(weights)], stack))
    weights.unlink(missing_ok=True)
    for side in sides:
        if side.child.about["parameters"] != preset.parameters():
            sys.exit(f"{NAME}: {preset.name} has {preset.parameters()} parameters, {side.name} built "
                     f"{side.child.about['parameters']}")
    return sides


def loss_difference(preset, side, ours, theirs):
    """The relative difference of the first losses; ends the program if they show that the two do not train alike."""
    differences = [abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True)]
    if not (differences[0] <= FIRST_LOSS and all(difference <= LATER_LOSSES for difference in differences)):
        sys.exit(f"{NAME}: {preset.name}: the losses of {side} differ: {ours} by tilegrad, {theirs}")
    return differences[0]


def measure(options, preset, checkpoint, about):
    """One line of the table. `about` takes what the processes say about themselves."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sides = start(options, preset, checkpoint, pathlib.Path(folder), stack)
        about |= {side.name: side.child.about for side in sides}
        losses = [side.first_losses() for side in sides]
        difference = max((loss_difference(preset, side.name, losses[0], theirs)
                          for side, theirs in zip(sides[1:], losses[1:])), default=None)
        for _ in range(options.turns):
            for side in sides:
                side.turn(options.seconds)
        line = {"preset": preset.name, "checkpoint": checkpoint, "threads": options.threads,
                "parameters": preset.parameters(), "operations": preset.operations(),
                "tilegrad_tracked": sides[0].last["tracked_peak"], "loss_difference": difference,
                "others": sides[0].others}
        times = {side.name: side.times for side in sides}
        rss = {f"{side.name}_rss": side.child.peak_rss() for side in sides}
        return line | rss | speeds(preset.operations(), times, sides[0].last["peak_gflops"])


def speeds(operations, times, peak_gflops):
    """Fastest and median step of each side, their share of the peak, and the ratios with the faster PyTorch."""
    best = {name: min(ms) for name, ms in times.items()}
    median = {name: statistics.median(ms) for name, ms in times.items()}
    found = {"peak_gflops": peak_gflops}
    for name in times:
        found |= {f"{name}_ms": best[name], f"{name}_median_ms": median[name],
                  f"{name}_of_peak": operations / (1e6 * best[name] * peak_gflops)}
    for key, ms in (("ratio", best), ("median_ratio", median)):
        found[key] = min((ms[name] / ms["tilegrad"] for name in times if name != "tilegrad"), default=None)
    return found


def faster_peer(line):
    """The name of the PyTorch that is compared with, if there is one."""
    peers = [name for name in SIDES[1:] if line.get(f"{name}_ms") is not None]
    return min(peers, key=lambda name: line[f"{name}_ms"], default=None)


# --- The table ---------------------------------------------------------------------------------------------------

WIDTHS = (7, 11, 10, 10, 10, 7, 8, 9, 9, 10, 10, 10)
HEADINGS = (("", "", "ms per step", "", "", "ratio", "", "of peak", "", "peak RSS, MiB", "", "tracked"),
            ("preset", "checkpoint", "tilegrad", "eager", "compiled", "best", "median", "tilegrad", "PyTorch",
             "tilegrad", "PyTorch", "MiB"))


def cells(line):
    def text(name, digits, unit=1):
        value = line.get(name)
        return "-" if value is None else f"{value / unit:.{digits}f}"

    peer = faster_peer(line)
    return (line["preset"], line["checkpoint"], *(text(f"{side}_ms", 2) for side in SIDES), text("ratio", 2),
            text("median_ratio", 2), text("tilegrad_of_peak", 3), text(f"{peer}_of_peak", 3),
            text("tilegrad_rss", 0, 2**20), text(f"{peer}_rss", 0, 2**20), text("tilegrad_tracked", 1, 2**20))


def aligned(texts):
    return "  ".join(text.ljust(width) if i < 2 else text.rjust(width)
                     for i, (text, width) in enumerate(zip(texts, WIDTHS))).rstrip()


def print_head(options, about):
    ours = about["tilegrad"]
    print(f"{ours['processor']}, tilegrad on {ours['simd']}, {options.threads} threads, f32; "
          "ratio = PyTorch / tilegrad")
    if "eager" in about:
        torch = about["eager"]
        print(f"PyTorch {torch['torch']} on {torch['simd']}; its process has {torch['empty_rss'] / 2**20:.0f} MiB "
              "before there is a model")
    for heading in HEADINGS:
        print(aligned(heading))


def main():
    options = parse_options()
    if not options.alone and importlib.util.find_spec("torch") is None:
        sys.exit(f"{NAME}: PyTorch is missing; --alone does without, or: pip install torch==2.13.0 "
                 "--index-url https://download.pytorch.org/whl/cpu")
    about, lines = {}, []
    for preset in options.presets:
        for checkpoint in CHECKPOINTS if options.checkpoint else CHECKPOINTS[:1]:
            lines.append(measure(options, preset, checkpoint, about))
            if len(lines) == 1:
                print_head(options, about)
            print(aligned(cells(lines[-1])) + busy_mark(lines[-1]), flush=True)
    print(f"The peak, measured meanwhile: {max(line['peak_gflops'] for line in lines):.1f} GFLOP/s.")
    if not options.alone:
        print(f"The first losses differ by {max(line['loss_difference'] for line in lines):.1e} of them, at most.")
    note_busy(lines)
    write_csv(options.csv, COLUMNS, lines)


if __name__ == "__main__":
    main()

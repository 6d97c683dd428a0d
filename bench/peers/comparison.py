"""What the comparisons with PyTorch's attention share: eager attention, measurement, the table."""

import math
import os
import pathlib
import re
import sys
import time

from results import NAME, ROOT, write_csv

try:
    import torch
except ImportError:
    sys.exit(f"{NAME}: PyTorch is missing; install it with\n"
             "  pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu")

GRID = r"t(64|256|1024|4096)_d(32|64|128)"  # names of the plain rows


def add_options(parser, turns, repetitions):
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2)
    parser.add_argument("--turns", type=int, default=turns, help="of tilegrad and PyTorch (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=repetitions, help="in each turn (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.005,
                        help="the minimum time of a repetition (default: %(default)s)")
    parser.add_argument("--csv", type=pathlib.Path, default=ROOT / f"build/bench/{NAME}.csv",
                        help="where the figures go, unrounded (default: %(default)s)")


# --- Eager attention ----------------------------------------------------------------------------------------


def eager(q, k, v, *, hidden=None, softcap=None, bias=None, sinks=None):
    """The formula in tensor operations, for (B, H, T, D). hidden (..., Tq, Tk) are the pairs that are not visible."""
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if hidden is not None:
        scores = scores.masked_fill(hidden, -math.inf)
    if sinks is None:
        return scores.softmax(dim=-1) @ v
    logits = torch.cat((scores, sinks[:, None, None].expand(*scores.shape[:-1], 1)), dim=-1)
    return logits.softmax(dim=-1)[..., :-1] @ v


def hidden_pairs(length, window=None, bounds=None):
    """What a causal mask hides, and a window, and the bounds of packed sequences: bool (T, T)."""
    pairs = torch.ones(length, length, dtype=torch.bool)
    visible = pairs.tril()
    if window is not None:
        visible = visible & pairs.triu(-window)
    if bounds is not None:
        sequence = torch.bucketize(torch.arange(length), bounds[1:-1], right=True)
        visible = visible & (sequence[:, None] == sequence[None, :])
    return ~visible


# --- Measurement --------------------------------------------------------------------------------------------


def best_ms(options, call):
    """The best repetition, each as long as tilegrad_bench would take for it."""

    def seconds(calls):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    once = min(seconds(1) for _ in range(3))  # memory and threads are there from now on
    calls = max(1, math.ceil(options.seconds / once))
    return 1e3 * min(seconds(calls) / calls for _ in range(options.repetitions))


def passes(attention, inputs):
    """The two calls that are timed. The graph of the backward one is kept."""

    def forward():
        with torch.no_grad():
            attention(*inputs)

    out = attention(*inputs)
    dout = torch.randn_like(out)
    return {"forward": forward, "backward": lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True)}


def with_ratios(line):
    """A ratio is PyTorch's time divided by tilegrad's; None where there is no time."""
    ratios = {f"{peer}_ratio": line[f"{peer}_ms"] and line[f"{peer}_ms"] / line["tilegrad_ms"]
              for peer in ("fused", "eager")}
    return line | ratios


# --- The table ----------------------------------------------------------------------------------------------


def begin(options, what):
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"{NAME}: load average {load:.1f}: other programs take part in these figures", file=sys.stderr)
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    print(f"{what} and PyTorch {torch.__version__}, f32, {options.threads} threads; times in ms, "
          "ratios = PyTorch / tilegrad")
    print(f"{'row':<14}{'mask':<7}{'pass':<9}{'tilegrad':>12}{'fused':>12}{'eager':>12}{'fused x':>9}{'eager x':>9}")


def mask_of(line):
    return "causal" if line["causal"] else "full"


def print_line(line):
    def text(value, digits):
        return "-" if value is None else f"{value:.{digits}f}"

    print(f"{line['row']:<14}{mask_of(line):<7}{line['pass']:<9}"
          f"{line['tilegrad_ms']:>12.4f}{text(line['fused_ms'], 4):>12}{text(line['eager_ms'], 4):>12}"
          f"{text(line['fused_ratio'], 2):>9}{text(line['eager_ratio'], 2):>9}", flush=True)


def end(options, columns, lines):
    """Geometric mean and minimum of the ratios over T x D x mask; the file of all figures."""
    for direction in ("forward", "backward"):
        grid = [line for line in lines if line["pass"] == direction and re.fullmatch(GRID, line["row"])]
        if not grid:
            continue
        mean = math.exp(sum(math.log(line["fused_ratio"]) for line in grid) / len(grid))
        least = min(grid, key=lambda line: line["fused_ratio"])
        print(f"{direction}, {len(grid)} rows t*_d* against fused: geometric mean {mean:.2f}, least "
              f"{least['fused_ratio']:.2f} ({least['row']} {mask_of(least)})")
    write_csv(options.csv, columns, lines)

#!/usr/bin/env python3
"""Times tilegrad.torch next to PyTorch's fused and eager attention, all three called from Python in one process.

    pip install '.[torch]'
    ./dev bench python                          # or: bench/peers/python_attention.py --help

The plain rows are those of torch_attention.py, T x D x mask, against scaled_dot_product_attention. The others are what
that one lacks, against eager attention, the formula in tensor operations: a window of 256, softcap, sinks, packed
sequences, a bias that has a gradient. All run on PyTorch's threads. The three take turns; the best repetition of all
turns is a row's time. A ratio is PyTorch's time divided by tilegrad's.
"""

import argparse
import csv
import math
import os
import pathlib
import sys

from torch_attention import best_ms, text, torch  # says so if PyTorch is missing

import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    import tilegrad.torch as tt
except ImportError:
    sys.exit("python_attention: tilegrad is missing; install it with: pip install .")

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADS = {64: 8, 256: 16, 1024: 8, 4096: 2}  # by length
COLUMNS = ("row", "pass", "mask", "tilegrad_ms", "fused_ms", "eager_ms", "fused_ratio", "eager_ratio")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--rows", choices=("all", "plain", "special"), default="all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="of the three (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=10, help="in each turn (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.005, help="the minimum time of a repetition")
    parser.add_argument("--csv", type=pathlib.Path, default=ROOT / "build/bench/python_attention.csv")
    return parser.parse_args()


# --- Eager attention ----------------------------------------------------------------------------------------


def eager(q, k, v, *, hidden=None, softcap=None, bias=None, sinks=None):
    """The formula in tensor operations. hidden (..., Tq, Tk) are the pairs that are not visible."""
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
    pairs = torch.ones(length, length, dtype=torch.bool)
    visible = pairs.tril()
    if window is not None:
        visible = visible & pairs.triu(-window)
    if bounds is not None:
        sequence = torch.bucketize(torch.arange(length), bounds[1:-1], right=True)
        visible = visible & (sequence[:, None] == sequence[None, :])
    return ~visible


# --- Rows: (name, mask, inputs, tilegrad, fused or None, eager or None) -------------------------------------------


def tensors(heads, length, dim):
    return [torch.randn(1, heads, length, dim, requires_grad=True) for _ in range(3)]


def plain_rows(lengths):
    for length in lengths:
        for dim in (32, 64, 128):
            for causal in (False, True):
                hidden = hidden_pairs(length) if causal else None

                def ours(q, k, v, causal=causal):
                    return tt.scaled_dot_product_attention(q, k, v, is_causal=causal)

                def fused(q, k, v, causal=causal):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

                def by_hand(q, k, v, hidden=hidden):
                    return eager(q, k, v, hidden=hidden)

                yield (f"t{length}_d{dim}", "causal" if causal else "full", tensors(HEADS[length], length, dim), ours,
                       fused, by_hand)


def special_rows(length=4096, heads=2, dim=64):
    inputs = tensors(heads, length, dim)
    hidden = hidden_pairs(length)
    sinks = torch.randn(heads, requires_grad=True)
    bias = torch.randn(1, heads, length, length, requires_grad=True)
    bounds = torch.tensor([0, 300, 1100, 1200, 2500, length], dtype=torch.int32)
    in_window, in_sequence = hidden_pairs(length, window=256), hidden_pairs(length, bounds=bounds)

    def packed(q, k, v):
        q, k, v = (x.squeeze(0).transpose(0, 1) for x in (q, k, v))
        return tt.flash_attn_varlen_func(q, k, v, bounds, bounds, causal=True).transpose(0, 1).unsqueeze(0)

    def ours(**options):
        return lambda q, k, v, *_: tt.scaled_dot_product_attention(q, k, v, is_causal=True, **options)

    def by_hand(hidden=hidden, **options):
        return lambda q, k, v, *_: eager(q, k, v, hidden=hidden, **options)

    yield "window 256", "causal", inputs, ours(window=(256, None)), None, by_hand(in_window)
    yield "softcap", "causal", inputs, ours(softcap=30.0), None, by_hand(softcap=30.0)
    yield "sinks", "causal", [*inputs, sinks], ours(sinks=sinks), None, by_hand(sinks=sinks)
    yield "varlen", "causal", inputs, packed, None, by_hand(in_sequence)
    yield "bias gradient", "causal", [*inputs, bias], ours(attn_mask=bias), None, by_hand(bias=bias)


# --- Measurement ----------------------------------------------------------------------------------------------


def passes(attention, inputs):
    """The two calls that are timed."""
    def forward():
        with torch.no_grad():
            attention(*inputs)

    out = attention(*inputs)
    dout = torch.randn_like(out)
    return {"forward": forward, "backward": lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True)}


def check_agreement(row, inputs, ours, theirs):
    with torch.no_grad():
        difference = (ours(*inputs) - theirs(*inputs)).abs().max().item()
    if difference > 1e-4:
        sys.exit(f"python_attention: {row} differs from PyTorch by {difference:.1e}")


def measure(options, row):
    name, mask, inputs, *attentions = row
    check_agreement(name, inputs, attentions[0], attentions[1] or attentions[2])
    calls = [None if attention is None else passes(attention, inputs) for attention in attentions]
    for direction in ("forward", "backward"):
        times = [[], [], []]
        for _ in range(options.turns):
            for turn, call in zip(times, calls):
                if call is not None:
                    turn.append(best_ms(options, call[direction]))
        ours, fused, by_hand = (min(turn, default=None) for turn in times)
        yield {"row": name, "pass": direction, "mask": mask, "tilegrad_ms": ours, "fused_ms": fused,
               "eager_ms": by_hand, "fused_ratio": fused and fused / ours, "eager_ratio": by_hand and by_hand / ours}


def print_line(line):
    print(f"{line['row']:<14}{line['mask']:<7}{line['pass']:<9}{line['tilegrad_ms']:>12.4f}{text(line['fused_ms'], 4):>12}"
          f"{text(line['eager_ms'], 4):>12}{text(line['fused_ratio'], 2):>9}{text(line['eager_ratio'], 2):>9}", flush=True)


def print_summary(lines):
    for direction in ("forward", "backward"):
        ratios = [line["fused_ratio"] for line in lines if line["pass"] == direction and line["fused_ratio"]]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            print(f"{direction}, {len(ratios)} plain rows against fused: geometric mean {mean:.2f}, least {min(ratios):.2f}")


def main():
    options = parse_options()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"python_attention: load average {load:.1f}: other programs take part in these figures", file=sys.stderr)
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    print(f"tilegrad.torch and PyTorch {torch.__version__}, f32, {options.threads} threads, called from Python; "
          "times in ms, ratios = PyTorch / tilegrad")
    print(f"{'row':<14}{'mask':<7}{'pass':<9}{'tilegrad':>12}{'fused':>12}{'eager':>12}{'fused x':>9}{'eager x':>9}")
    rows = [*(plain_rows(options.lengths) if options.rows != "special" else ()),
            *(special_rows() if options.rows != "plain" else ())]
    lines = []
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for row in rows:
            for line in measure(options, row):
                print_line(line)
                lines.append(line)
    print_summary(lines)
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with open(options.csv, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    print(f"{options.csv} has all figures.")


if __name__ == "__main__":
    main()

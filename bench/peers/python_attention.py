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
import sys

from comparison import (add_options, begin, best_ms, eager, end, hidden_pairs, passes, print_line, torch,
                        with_ratios)

import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    import tilegrad.torch as tt
except ImportError:
    sys.exit("python_attention: tilegrad is missing; install it with: pip install .")

HEADS = {64: 8, 256: 16, 1024: 8, 4096: 2}  # by length
DIMS = (32, 64, 128)
COLUMNS = ("row", "pass", "causal", "tilegrad_ms", "fused_ms", "eager_ms", "fused_ratio", "eager_ratio")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS), choices=DIMS, help="of the plain rows")
    parser.add_argument("--rows", choices=("all", "plain", "special"), default="all")
    add_options(parser, turns=3, repetitions=10)
    return parser.parse_args()


# --- Rows: (name, causal, inputs, tilegrad, fused or None, eager or None) -------------------------------------------


def tensors(heads, length, dim):
    return [torch.randn(1, heads, length, dim, requires_grad=True) for _ in range(3)]


def plain_rows(lengths, dims):
    for length in lengths:
        for dim in dims:
            for causal in (False, True):
                hidden = hidden_pairs(length) if causal else None

                def ours(q, k, v, causal=causal):
                    return tt.scaled_dot_product_attention(q, k, v, is_causal=causal)

                def fused(q, k, v, causal=causal):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

                def by_hand(q, k, v, hidden=hidden):
                    return eager(q, k, v, hidden=hidden)

                yield (f"t{length}_d{dim}", causal, tensors(HEADS[length], length, dim), ours,
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

    yield "window 256", True, inputs, ours(window=(256, None)), None, by_hand(in_window)
    yield "softcap", True, inputs, ours(softcap=30.0), None, by_hand(softcap=30.0)
    yield "sinks", True, [*inputs, sinks], ours(sinks=sinks), None, by_hand(sinks=sinks)
    yield "varlen", True, inputs, packed, None, by_hand(in_sequence)
    yield "bias gradient", True, [*inputs, bias], ours(attn_mask=bias), None, by_hand(bias=bias)


# --- Measurement ----------------------------------------------------------------------------------------------


def check_agreement(row, inputs, ours, theirs):
    with torch.no_grad():
        difference = (ours(*inputs) - theirs(*inputs)).abs().max().item()
    if difference > 1e-4:
        sys.exit(f"python_attention: {row} differs from PyTorch by {difference:.1e}")


def measure(options, row):
    name, causal, inputs, *attentions = row
    check_agreement(name, inputs, attentions[0], attentions[1] or attentions[2])
    calls = [None if attention is None else passes(attention, inputs) for attention in attentions]
    for direction in ("forward", "backward"):
        times = [[], [], []]
        for _ in range(options.turns):
            for turn, call in zip(times, calls):
                if call is not None:
                    turn.append(best_ms(options, call[direction]))
        ours, fused, by_hand = (min(turn, default=None) for turn in times)
        yield with_ratios({"row": name, "pass": direction, "causal": int(causal), "tilegrad_ms": ours, "fused_ms": fused,
                           "eager_ms": by_hand})


def main():
    options = parse_options()
    begin(options, "tilegrad.torch, called from Python,")
    rows = [*(plain_rows(options.lengths, options.dims) if options.rows != "special" else ()),
            *(special_rows() if options.rows != "plain" else ())]
    lines = []
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for row in rows:
            for line in measure(options, row):
                print_line(line)
                lines.append(line)
    end(options, COLUMNS, lines)


if __name__ == "__main__":
    main()

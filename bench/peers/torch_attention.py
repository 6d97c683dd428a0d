#!/usr/bin/env python3
"""Times flash attention of tilegrad and the fused and eager attention of PyTorch, on the same rows in the same run.

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    ./dev bench peers                           # or: bench/peers/torch_attention.py --help

A row is one of tilegrad_bench, which runs as a child process. They alternate: tilegrad, PyTorch, tilegrad,
PyTorch. Both count the same way: a repetition is the mean of as many calls as fill a few milliseconds, and the
best repetition of all turns is the row's time. A ratio is PyTorch's time divided by tilegrad's.

PyTorch gets tensors of the layout that suits it, (B, H, T, D); its backward is torch.autograd.grad on a graph
that is kept. Fused is scaled_dot_product_attention, held to its flash kernel; eager is the formula in tensor
operations, left out where its scores would take much memory.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

from comparison import (GRID, ROOT, add_options, begin, best_ms, eager, end, hidden_pairs, passes, print_line, torch,
                        with_ratios)

import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

MOST_SCORES = 2**26  # that eager attention may keep, in elements
COLUMNS = ("row", "pass", "threads", "causal", "batch", "heads", "kv_heads", "time", "dim",
           "tilegrad_ms", "fused_ms", "eager_ms", "fused_ratio", "eager_ratio")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/tilegrad_bench",
                        help="the program that times tilegrad")
    parser.add_argument("--rows", default=f"{GRID}|mqa|training_step", metavar="REGEX",
                        help="names of rows, without pass and arguments (default: %(default)s)")
    add_options(parser, turns=2, repetitions=20)
    return parser.parse_args()


# --- tilegrad ---------------------------------------------------------------------------------------------


def run_bench(options, *arguments):
    """What tilegrad_bench prints. It chooses OpenBLAS's kernels itself, as for any user."""
    environment = {key: value for key, value in os.environ.items()
                   if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    try:
        child = subprocess.run([options.bench, *arguments], env=environment, capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"torch_attention: {options.bench}: {error.strerror}; ./dev bench peers builds it")
    if child.returncode != 0:
        sys.exit(f"torch_attention: {options.bench.name} {' '.join(arguments)} failed\n{child.stdout}{child.stderr}")
    return child.stdout


def list_rows(options):
    """The names of the chosen benchmarks, such as "mqa/forward/causal:1/threads:2/real_time"."""
    pattern = f"^({options.rows})/(forward|backward)/causal:[01]/threads:{options.threads}/"
    names = run_bench(options, "--benchmark_list_tests=true", f"--benchmark_filter={pattern}").split("\n")
    return [name for name in names if re.match(pattern, name)]


def time_tilegrad(options, name):
    """Milliseconds of the best repetition, and the label that tells the problem's sizes."""
    output = run_bench(options, f"--benchmark_filter=^{name}$", "--benchmark_format=json",
                       f"--benchmark_repetitions={options.repetitions}", f"--benchmark_min_time={options.seconds}")
    runs = [run for run in json.loads(output)["benchmarks"] if run["run_type"] == "iteration"]
    return min(run["real_time"] for run in runs), runs[0]["label"]


def problem_of(name, label):
    """The columns that say what a row computes, from its name and a label like "f32, B 1, H 8/1, T 4096, D 64"."""
    row, direction, causal, threads = re.match(r"(\w+)/(\w+)/causal:(\d)/threads:(\d+)", name).groups()
    sizes = re.fullmatch(r"f32, B (\d+), H (\d+)(?:/(\d+))?, T (\d+), D (\d+)", label)
    if sizes is None:
        sys.exit(f"torch_attention: {row} has no counterpart here: {label}")
    batch, heads, kv_heads, length, dim = (int(size or sizes[2]) for size in sizes.groups())
    return {"row": row, "pass": direction, "threads": int(threads), "causal": int(causal), "batch": batch,
            "heads": heads, "kv_heads": kv_heads, "time": length, "dim": dim}


# --- PyTorch ----------------------------------------------------------------------------------------------


def time_torch(options, problem, attention):
    """Milliseconds of an attention of q, k, v."""
    size = (problem["time"], problem["dim"])
    q, k, v = (torch.randn(problem["batch"], problem[heads], *size, requires_grad=True)
               for heads in ("heads", "kv_heads", "kv_heads"))
    return best_ms(options, passes(attention, (q, k, v))[problem["pass"]])


def time_fused(options, problem):
    causal, grouped = bool(problem["causal"]), problem["heads"] != problem["kv_heads"]
    return time_torch(options, problem, lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, is_causal=causal, enable_gqa=grouped))


def time_eager(options, problem):
    hidden = hidden_pairs(problem["time"]) if problem["causal"] else None
    return time_torch(options, problem, lambda q, k, v: eager(q, k, v, hidden=hidden))


def eager_fits(problem):
    return problem["batch"] * problem["heads"] * problem["time"] ** 2 <= MOST_SCORES


# --- both -------------------------------------------------------------------------------------------------


def measure(options, name):
    """One line of the table."""
    tilegrad, fused_times, eager_times = [], [], []
    for _ in range(options.turns):
        ms, label = time_tilegrad(options, name)
        tilegrad.append(ms)
        problem = problem_of(name, label)
        fused_times.append(time_fused(options, problem))
        if eager_fits(problem):
            eager_times.append(time_eager(options, problem))
    return with_ratios(problem | {"tilegrad_ms": min(tilegrad), "fused_ms": min(fused_times),
                                  "eager_ms": min(eager_times, default=None)})


def main():
    options = parse_options()
    names = list_rows(options)
    if not names:
        sys.exit(f"torch_attention: no row is called {options.rows}")
    begin(options, "tilegrad")
    lines = []
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for name in names:
            lines.append(measure(options, name))
            print_line(lines[-1])
    end(options, COLUMNS, lines)


if __name__ == "__main__":
    main()

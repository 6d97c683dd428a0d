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
import csv
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError:
    sys.exit("torch_attention: PyTorch is missing; install it with\n"
             "  pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu")

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRID = r"t(64|256|1024|4096)_d(32|64|128)"
MOST_SCORES = 2**26  # that eager attention may keep, in elements
COLUMNS = ("row", "pass", "threads", "causal", "batch", "heads", "kv_heads", "time", "dim",
           "tilegrad_ms", "fused_ms", "eager_ms", "fused_ratio", "eager_ratio")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/bench/tilegrad_bench",
                        help="the program that times tilegrad")
    parser.add_argument("--rows", default=f"{GRID}|mqa|training_step", metavar="REGEX",
                        help="names of rows, without pass and arguments (default: %(default)s)")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2)
    parser.add_argument("--turns", type=int, default=2, help="of tilegrad and PyTorch (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=20, help="in each turn (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.005,
                        help="the minimum time of a repetition (default: %(default)s)")
    parser.add_argument("--csv", type=pathlib.Path, default=ROOT / "build/bench/torch_attention.csv",
                        help="where the figures go, unrounded (default: %(default)s)")
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


def fused(q, k, v, mask):
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=mask is not None, enable_gqa=grouped)


def eager(q, k, v, mask):
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf)
    return scores.softmax(dim=-1) @ v


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


def time_torch(options, attention, problem):
    def tensor(heads):
        size = (problem["batch"], heads, problem["time"], problem["dim"])
        return torch.randn(size, requires_grad=True)

    q, k, v = (tensor(problem[heads]) for heads in ("heads", "kv_heads", "kv_heads"))
    length = problem["time"]
    mask = torch.ones(length, length, dtype=torch.bool).triu(1) if problem["causal"] else None
    if problem["pass"] == "forward":
        with torch.no_grad():
            return best_ms(options, lambda: attention(q, k, v, mask))
    out = attention(q, k, v, mask)
    dout = torch.randn_like(out)
    return best_ms(options, lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))


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
        fused_times.append(time_torch(options, fused, problem))
        if eager_fits(problem):
            eager_times.append(time_torch(options, eager, problem))
    line = problem | {"tilegrad_ms": min(tilegrad), "fused_ms": min(fused_times),
                      "eager_ms": min(eager_times, default=None)}
    line["fused_ratio"] = line["fused_ms"] / line["tilegrad_ms"]
    line["eager_ratio"] = line["eager_ms"] and line["eager_ms"] / line["tilegrad_ms"]
    return line


def text(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def print_line(line):
    mask = "causal" if line["causal"] else "full"
    print(f"{line['row']:<14}{mask:<7}{line['pass']:<9}"
          f"{line['tilegrad_ms']:>12.4f}{line['fused_ms']:>12.4f}{text(line['eager_ms'], 4):>12}"
          f"{text(line['fused_ratio'], 2):>9}{text(line['eager_ratio'], 2):>9}", flush=True)


def print_summary(lines):
    """Geometric mean and minimum of the ratios over T x D x mask."""
    for direction in ("forward", "backward"):
        grid = [line for line in lines if line["pass"] == direction and re.fullmatch(GRID, line["row"])]
        if not grid:
            continue
        mean = math.exp(sum(math.log(line["fused_ratio"]) for line in grid) / len(grid))
        least = min(grid, key=lambda line: line["fused_ratio"])
        print(f"{direction}, {len(grid)} rows t*_d* against fused: geometric mean {mean:.2f}, least "
              f"{least['fused_ratio']:.2f} ({least['row']} {'causal' if least['causal'] else 'full'})")


def write_csv(path, lines):
    """Replaces the file atomically, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    temporary.replace(path)


def main():
    options = parse_options()
    names = list_rows(options)
    if not names:
        sys.exit(f"torch_attention: no row is called {options.rows}")
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"torch_attention: load average {load:.1f}: other programs take part in these figures", file=sys.stderr)
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    print(f"tilegrad and PyTorch {torch.__version__}, f32, {options.threads} threads; "
          "times in ms, ratios = PyTorch / tilegrad")
    print(f"{'row':<14}{'mask':<7}{'pass':<9}{'tilegrad':>12}{'fused':>12}{'eager':>12}{'fused x':>9}{'eager x':>9}")
    lines = []
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for name in names:
            lines.append(measure(options, name))
            print_line(lines[-1])
    print_summary(lines)
    write_csv(options.csv, lines)
    print(f"{options.csv} has all figures.")


if __name__ == "__main__":
    main()

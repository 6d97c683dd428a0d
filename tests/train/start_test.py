#!/usr/bin/env python3
"""With too little address space the program says so, in one line, instead of hanging.

    python3 tests/train/start_test.py build/release/tilegrad
"""
import os
import resource
import subprocess
import sys

MIB = 1 << 20


def start(program, limit, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    limit_it = lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, preexec_fn=limit_it,
                          env=environment)


def main():
    program, = sys.argv[1:]
    for threads in (1, 2):
        refused = 0
        # From what cannot even load the program to what is plenty.
        for limit in range(100 * MIB, 700 * MIB, 20 * MIB):
            result = start(program, limit, threads)
            if result.returncode == 0:
                continue
            refused += 1
            assert refused * 20 * MIB + 100 * MIB > limit, f"refused at {limit // MIB} MiB, but not at less"
            assert len(result.stderr.splitlines()) == 1, result
            cannot_load = result.returncode == 127  # says the system's loader
            assert cannot_load or (result.returncode == 1 and "the address space is limited to" in result.stderr), result
        assert refused > 0
    print("too little address space is an error")


if __name__ == "__main__":
    main()

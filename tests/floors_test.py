#!/usr/bin/env python3
"""Fails on an include that looks up: each floor of the house may use those below it and nothing else."""

import pathlib
import re
import sys

BELOW = {
    "base": [],
    "kernels": ["base"],
    "autograd": ["kernels"],
    "nn": ["autograd"],
    "data": ["base"],
    "train/measure": ["autograd"],
    "train/run": ["train/measure", "nn", "data"],
    "train/report": ["train/run"],
    "train/labs": ["train/report"],
    "train/app": ["train/labs"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def visible_from(floor):
    """The floor itself and all that lie below it."""
    return {floor}.union(*(visible_from(lower) for lower in BELOW[floor]))


def floor_of(header):
    return next((floor for floor in BELOW if header.startswith(f"tilegrad/{floor}/")), None)


def faults_in(source, floor):
    for number, line in enumerate(source.read_text().splitlines(), 1):
        included = INCLUDE.match(line)
        if included and floor_of(included[1]) not in visible_from(floor):
            yield f'{source}:{number}: {floor}/ must not include "{included[1]}"'


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    faults = []
    for floor in BELOW:
        for source in sorted((root / floor).rglob("*")):
            if source.suffix in (".h", ".cpp"):
                faults += faults_in(source, floor)
    print("\n".join(faults), end="\n" if faults else "")
    sys.exit(1 if faults else 0)


main()

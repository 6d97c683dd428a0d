#!/usr/bin/env python3
"""A run that is killed 30 times, at random points, and resumed each time has the metrics and weights of a run that was
left alone, bit for bit.

    python3 tests/train/kill_test.py build/release/tilegrad
"""
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

KILLS = 30
STEPS = 400
SETTINGS = ["--task", "copy", "--layers", "1", "--width", "16", "--heads", "2", "--batch", "4", "--dropout", "0.1",
            "--checkpoint", "block", "--eval-every", "100", "--save-every", "4", "--threads", "2", "--quiet"]


def timeless(folder):
    """metrics.jsonl without what depends on the clock."""
    lines = []
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        lines.append({key: value for key, value in line.items() if key not in ("ms", "tokens_per_s")})
    return lines


def start(program, folder):
    """Begins the run, or goes on with it if it has saved."""
    if (folder / "state.safetensors").exists():
        arguments = ["--resume", folder, "--quiet"]
    else:
        arguments = [*SETTINGS, "--steps", str(STEPS), "--out", folder, "--overwrite"]
    return subprocess.Popen([program, "train", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def main():
    program, = sys.argv[1:]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    delays = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole, killed = pathlib.Path(temporary, "whole"), pathlib.Path(temporary, "killed")
        began = time.monotonic()
        subprocess.run([program, "train", *SETTINGS, "--steps", str(STEPS), "--out", whole], check=True,
                       stdout=subprocess.DEVNULL)
        lasts = time.monotonic() - began
        kills = 0
        while True:
            child = start(program, killed)
            try:
                # Most of them land between the start and a few saves; now and then one gets far.
                child.wait(None if kills == KILLS else delays.uniform(0.05, 0.05 + lasts / 4))
            except subprocess.TimeoutExpired:
                child.kill()
                kills += 1
            message = child.communicate()[1].decode()
            assert child.returncode in (0, -signal.SIGKILL), f"after {kills} kills: {message}"
            if child.returncode == 0:
                break
        assert timeless(killed) == timeless(whole), f"the metrics differ after {kills} kills"
        for name in ("model.safetensors", "state.safetensors"):
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs after {kills} kills"
        left = {path.name for path in killed.iterdir()} - {path.name for path in whole.iterdir()}
        assert not left, f"left behind: {left}"
        print(f"{kills} kills, every bit equal")
        assert kills > 5, "the run ended before it was killed; make it longer"


if __name__ == "__main__":
    main()

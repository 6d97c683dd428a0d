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
STEPS = 3000
SETTINGS = ["--task", "copy", "--layers", "1", "--width", "16", "--heads", "2", "--batch", "4", "--dropout", "0.1",
            "--checkpoint", "block", "--eval-every", "500", "--save-every", "4", "--threads", "2", "--quiet"]


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


def steps_in(folder):
    metrics = folder / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def kill_somewhere(child, folder, draw):
    """While it begins, or up to a few saves later. The points are steps, so that they do not depend on the machine."""
    if draw.random() < .25:
        time.sleep(draw.uniform(0, .15))
    else:
        last = steps_in(folder) + draw.randint(1, 20)
        while steps_in(folder) < last and child.poll() is None:
            time.sleep(.001)
        time.sleep(draw.uniform(0, .005))
    child.kill()


def main():
    program, = sys.argv[1:]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole, killed = pathlib.Path(temporary, "whole"), pathlib.Path(temporary, "killed")
        subprocess.run([program, "train", *SETTINGS, "--steps", str(STEPS), "--out", whole], check=True,
                       stdout=subprocess.DEVNULL)
        for kill in range(KILLS + 1):
            child = start(program, killed)
            if kill < KILLS:
                kill_somewhere(child, killed, draw)
            message = child.communicate()[1].decode()
            expected = -signal.SIGKILL if kill < KILLS else 0
            assert child.returncode == expected, f"after {kill} kills: code {child.returncode}, {message}"
        assert timeless(killed) == timeless(whole), "the metrics differ"
        for name in ("model.safetensors", "state.safetensors"):
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
        left = {path.name for path in killed.iterdir()} - {path.name for path in whole.iterdir()}
        assert not left, f"left behind: {left}"
    print(f"{KILLS} kills, every bit equal")


if __name__ == "__main__":
    main()

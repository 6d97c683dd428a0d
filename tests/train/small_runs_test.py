#!/usr/bin/env python3
"""Runs as small as they can be, through all that a run goes through: both kernels, checkpoints, dropout, shared heads,
saving, resuming, evaluating, sampling. A build with sanitizers watches the whole program at it.

    python3 tests/train/small_runs_test.py build/debug/tilegrad
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
TINY = ["--task", "sort", "--layers", "1", "--width", "16", "--heads", "2", "--batch", "4", "--eval-every", "2",
        "--save-every", "2", "--quiet"]
VARIANTS = {
    "naive": ["--attention", "naive"],
    "flash": ["--attention", "flash"],
    "everything": ["--kv-heads", "1", "--positions", "rope", "--mlp", "swiglu", "--norm", "rmsnorm", "--window", "5",
                   "--softcap", "30", "--sinks", "--dropout", "0.1", "--checkpoint", "block", "--profile"],
}


class SmallRuns(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def run_program(self, *arguments):
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr}")
        return done.stdout

    def train(self, name, steps):
        self.run_program("train", *TINY, *VARIANTS[name], "--steps", steps, "--out", self.folder / name)
        return self.losses(name)

    def losses(self, name):
        lines = [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    def test_naive_and_flash_have_the_same_losses(self):
        for naive, flash in zip(self.train("naive", 3), self.train("flash", 3), strict=True):
            self.assertAlmostEqual(naive, flash, delta=1e-4)

    def test_a_run_with_every_option_goes_on_and_serves_the_other_commands(self):
        run = self.folder / "everything"
        begun = self.train("everything", 2)
        self.run_program("train", "--resume", run, "--steps", "4", "--quiet")
        self.assertEqual(self.losses("everything")[:2], begun)
        self.assertEqual(len(self.losses("everything")), 4)
        self.assertIn("loss", self.run_program("evaluate", run))
        self.assertTrue(self.run_program("sample", run, "--prompt", "2 1 0 1 2 0").strip())


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()

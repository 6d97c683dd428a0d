#!/usr/bin/env python3
"""What bench/peers/torch_training.py does without PyTorch: its formula, its options, its table, and tilegrad alone."""

import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PEERS = pathlib.Path(__file__).resolve().parents[2] / "bench/peers"
SCRIPT = PEERS / "torch_training.py"
sys.path.insert(0, str(PEERS))
import torch_training
from presets import PRESETS

# Answers as tilegrad_training_steps does. The steps of a turn take 4 ms, 5 ms, ...
PROGRAM = f"""#!{sys.executable}
import json, pathlib, sys
settings = json.loads(sys.argv[1])
pathlib.Path(sys.argv[2]).write_text("weights")
print(json.dumps({{"parameters": PARAMETERS, "processor": "A processor", "simd": "AVX2"}}), flush=True)
for line in sys.stdin:
    steps = int(line)
    print(json.dumps({{"ms": [4 + i for i in range(steps)], "losses": [5.5] * steps, "peak_gflops": 100, "others": OTHERS,
                      "tracked_peak": ["block", "elementwise", "none"].index(settings["checkpoint"]) * 2**20}}), flush=True)
"""


def run(*options, python=(), **environment):
    return subprocess.run([sys.executable, *python, SCRIPT, *map(str, options)], capture_output=True, text=True,
                          env=os.environ | environment)


class Formula(unittest.TestCase):
    def test_parameters_are_those_of_gpt2_but_for_a_shorter_context(self):
        self.assertEqual(PRESETS["gpt2"].parameters(), 124_439_808 - (1024 - 64) * 768)

    def test_parameters_of_every_part_are_counted(self):
        block = 4 * (48 * 48 + 48) + (192 * 48 + 192) + (48 * 192 + 48) + 2 * (48 + 48)
        self.assertEqual(PRESETS["toy"].parameters(), 256 * 48 + 16 * 48 + 2 * block + 2 * 48)

    def test_operations_are_six_for_parameter_and_token_and_the_products_of_attention(self):
        pairs = sum(query + 1 for query in range(16)) * 32 * 2  # of a head, in all sequences and layers
        products = 2 + 4  # forward, backward
        attention = 2 * 24 * products * pairs * 2  # a multiplication and a sum, head size, in 2 heads
        self.assertEqual(PRESETS["toy"].operations(), 6 * 69696 * 512 + attention)

    def test_products_have_six_operations_for_each_weight_and_token(self):
        for preset in PRESETS.values():
            total = 0
            for (_, m, n, k), layers in preset.products().items():
                for layer in layers:
                    total += 2 * m * n * k * (1 if layer == "head" else preset.layers * len(layer.split(", ")))
            weights = preset.layers * 12 * preset.width**2 + preset.vocabulary * preset.width
            self.assertEqual(total, 6 * weights * preset.tokens, preset.name)


class Figures(unittest.TestCase):
    def test_speeds_are_those_of_the_fastest_step_and_of_the_faster_peer(self):
        found = torch_training.speeds(4e8, {"tilegrad": [4, 5, 9], "eager": [8, 8, 8], "compiled": [6, 20, 20]}, 200)
        self.assertEqual(found["tilegrad_ms"], 4)
        self.assertEqual(found["tilegrad_median_ms"], 5)
        self.assertAlmostEqual(found["tilegrad_of_peak"], 0.5)  # 4e8 in 4 ms is 100 GFLOP/s
        self.assertAlmostEqual(found["eager_of_peak"], 0.25)
        self.assertAlmostEqual(found["ratio"], 6 / 4)
        self.assertAlmostEqual(found["median_ratio"], 8 / 5)

    def test_a_line_shows_the_faster_peer(self):
        line = {"preset": "toy", "checkpoint": "none", "eager_ms": 8, "compiled_ms": 6, "eager_rss": 2**20,
                "compiled_rss": 7 * 2**20, "compiled_of_peak": 0.3, "tilegrad_ms": 4}
        cells = torch_training.cells(line)
        self.assertEqual(cells[2:5], ("4.00", "8.00", "6.00"))
        self.assertEqual((cells[8], cells[10]), ("0.300", "7"))

    def test_other_losses_end_the_run(self):
        def difference(theirs):
            return torch_training.loss_difference(PRESETS["toy"], "eager", [5.0, 4.0], theirs)

        self.assertLess(difference([5.00001, 4.001]), 1e-5)
        for theirs in ([5.001, 4.0], [5.0, 4.1], [5.0, float("nan")]):
            with self.assertRaisesRegex(SystemExit, "toy: the losses of eager differ"):
                difference(theirs)


class Options(unittest.TestCase):
    def expect_one_line(self, result, expected):
        self.assertNotEqual(result.returncode, 0)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith(f"torch_training: {expected}"), lines[0])
        self.assertEqual(result.stdout, "")

    def test_options_that_make_no_sense_give_one_line(self):
        for options, expected in ((["tiny"], "there is no preset `tiny`, but toy, char, small, long, gpt2"),
                                  (["--turns", "0"], "argument --turns: `0` is not a whole number"),
                                  (["--turns", "two"], "argument --turns: `two` is not a whole number"),
                                  (["--seconds", "nan"], "argument --seconds: `nan` is not a positive number"),
                                  (["--seconds=-1"], "argument --seconds: `-1` is not a positive number"),
                                  (["--threads", "0"], "argument --threads: `0` is not a whole number"),
                                  (["--threads", "100000"], "argument --threads: 100000 threads on "),
                                  (["--alone", "--compile"], "--compile is about PyTorch"),
                                  (["--steps", "3"], "unrecognized arguments: --steps")):
            with self.subTest(options=options):
                self.expect_one_line(run(*options), expected)

    def test_without_pytorch_there_is_one_line(self):
        self.expect_one_line(run(python=("-S", "-E")), "PyTorch is missing; --alone does without")

    def test_without_the_program_there_is_one_line(self):
        self.expect_one_line(run("toy", "--alone", "--program", "/nowhere/steps"),
                             "/nowhere/steps: No such file or directory; ./dev bench steps builds it")


class Alone(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.csv = self.folder / "figures.csv"

    def train(self, *options, parameters=PRESETS["toy"].parameters(), others=0.0):
        program = self.folder / "steps"
        program.write_text(PROGRAM.replace("PARAMETERS", str(parameters)).replace("OTHERS", str(others)))
        program.chmod(0o755)
        result = run("toy", "--alone", "--turns", 2, "--seconds", 0.02, "--threads", 1, "--program", program, "--csv",
                     self.csv, *options, TMPDIR=str(self.folder))
        return result

    def test_a_row_for_each_preset_with_and_without_checkpoints(self):
        result = self.train("--checkpoint")
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(self.csv, newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["checkpoint"] for row in rows], ["none", "elementwise", "block"])
        self.assertEqual([float(row["tilegrad_tracked"]) / 2**20 for row in rows], [2, 1, 0])
        for row in rows:
            self.assertEqual(float(row["tilegrad_ms"]), 4)  # the first step of a turn, but not the very first one
            self.assertAlmostEqual(float(row["tilegrad_of_peak"]), PRESETS["toy"].operations() / (4e6 * 100))
            self.assertGreater(int(row["tilegrad_rss"]), 2**20)
            self.assertEqual((row["eager_ms"], row["ratio"]), ("", ""))
        self.assertIn("A processor, tilegrad on AVX2, 1 threads", result.stdout)
        self.assertRegex(result.stdout, r"\ntoy +none +4\.00 +- +- +- +- +0\.548 +- ")

    def test_a_row_during_which_others_were_busy_is_marked(self):
        calm, busy = self.train(others=0.05), self.train(others=0.2)
        self.assertEqual(calm.stderr, "")
        self.assertNotIn("busy", calm.stdout)
        self.assertRegex(busy.stdout, r"\ntoy .*  busy\n")
        self.assertRegex(busy.stderr, r"\Atorch_training: in 1 of 1 rows, marked busy, .*\n\Z")

    def test_another_model_than_the_formula_counts_ends_the_run(self):
        result = self.train(parameters=1000)
        self.assertEqual(result.returncode, 1)
        self.assertIn("torch_training: toy has 69696 parameters, tilegrad built 1000\n", result.stderr)

    def test_a_file_that_cannot_be_written_gives_one_line(self):
        self.csv = self.folder / "steps/figures.csv"  # in a file
        result = self.train()
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\Atorch_training: .*figures.csv: (Not a directory|File exists)\n\Z")

    def test_nothing_is_left_behind(self):
        self.train()
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"steps", "figures.csv"})


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""What bench/peers/products.py asks its program to multiply, and what it makes of the answers."""

import csv
import pathlib
import subprocess
import sys
import tempfile
import unittest

PEERS = pathlib.Path(__file__).resolve().parents[2] / "bench/peers"
SCRIPT = PEERS / "products.py"
sys.path.insert(0, str(PEERS))
import products
from presets import PRESETS

# Answers as tilegrad_products does, and notes what it was asked for.
PROGRAM = f"""#!{sys.executable}
import json, pathlib, sys
print(json.dumps({{"processor": "A processor", "simd": "AVX2", "openblas": "Zen"}}), flush=True)
for line in sys.stdin:
    with open(sys.argv[0] + ".asked", "a") as file:
        file.write(line)
    print(json.dumps({{"ms": {{"openblas": 3, "tilegrad": 2}}, "peak_gflops": 100, "others": 0.3}}), flush=True)
"""


class Products(unittest.TestCase):
    def test_every_linear_layer_has_three_passes(self):
        rows = products.rows([PRESETS["char"]])
        for key in (("forward", 768, 128, 128), ("forward", 768, 512, 128), ("dw", 512, 128, 768),
                    ("dx", 768, 128, 512), ("forward", 768, 256, 128), ("dx", 1024, 1024, 1024)):
            self.assertIn(key, rows)
        self.assertEqual(len(rows), 3 * 4 + 1)
        self.assertEqual(rows["dw", 512, 128, 768], "char: up")
        self.assertIn(("forward", 2048, 1536, 384), products.rows([PRESETS["small"]]))

    def test_a_line_has_shares_of_the_peak_and_the_ratio_with_the_faster_library(self):
        answer = {"ms": {"openblas": 4, "tilegrad": 2, "onednn": 3}, "peak_gflops": 200, "others": 0}
        line = products.figures(("dx", 1000, 100, 1000), 1, "layer", answer)  # 2e8 operations
        self.assertAlmostEqual(line["openblas_of_peak"], 0.25)
        self.assertAlmostEqual(line["tilegrad_of_peak"], 0.5)
        self.assertAlmostEqual(line["ratio"], 1.5)

    def test_without_onednn_its_cells_are_empty(self):
        answer = {"ms": {"openblas": 4, "tilegrad": 2}, "peak_gflops": 200, "others": 0}
        cells = products.cells(products.figures(("dw", 10, 20, 30), 1, "layer", answer))
        self.assertEqual(cells[:6], ("aᵀ b", "10 x 20 x 30", "1", "4.0000", "2.0000", "-"))
        self.assertEqual(cells[8:10], ("-", "2.00"))

    def test_all_rows_are_asked_for_on_every_number_of_threads(self):
        with tempfile.TemporaryDirectory() as folder:
            program, table = pathlib.Path(folder, "products"), pathlib.Path(folder, "figures.csv")
            program.write_text(PROGRAM)
            program.chmod(0o755)
            run = subprocess.run([sys.executable, SCRIPT, "toy", "--threads", "1", "--program", program, "--csv",
                                  table], capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("A processor, tilegrad on AVX2, OpenBLAS for Zen", run.stdout)
            self.assertIn("square  busy\n", run.stdout)
            asked = pathlib.Path(f"{program}.asked").read_text().splitlines()
            self.assertEqual(asked, [" ".join(map(str, (*key, 1))) for key in products.rows([PRESETS["toy"]])])
            with open(table, newline="") as file:
                self.assertEqual([row["tilegrad_ms"] for row in csv.DictReader(file)], ["2"] * len(asked))

    def test_options_that_make_no_sense_give_one_line(self):
        for options, expected in ((["tiny"], "there is no preset `tiny`"), (["--threads", "0"], "argument --threads"),
                                  (["--turns", "-1"], "argument --turns"),
                                  (["--program", "/nowhere/products"], "/nowhere/products: No such file")):
            with self.subTest(options=options):
                run = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)
                self.assertNotEqual(run.returncode, 0)
                lines = run.stderr.splitlines()
                self.assertEqual(len(lines), 1, run.stderr)
                self.assertTrue(lines[0].startswith(f"products: {expected}"), lines[0])


if __name__ == "__main__":
    unittest.main()

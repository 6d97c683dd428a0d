#!/usr/bin/env python3
"""What bench/traffic/traffic.py makes of the reports of valgrind, which need not be there."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "bench/traffic/traffic.py"
spec = importlib.util.spec_from_file_location("traffic", SCRIPT)
traffic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(traffic)

REPORT = """==1== Events    : Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw ILdmr DLdmr DLdmw
==1== Collected : 900 800 700 600 500 400 1 20 300 2 40 800
==1==
==1== I   refs:      900
"""

# In place of valgrind: checks how it is called, and reports numbers of lines from which each pass has others.
VALGRIND = """#!/bin/sh
test "$LD_BIND_NOW" = 1 || { echo "names are bound late" >&2; exit 3; }
case "$*" in
  "--tool=callgrind --cache-sim=yes --simulate-wb=yes --I1=1024,8,64 --D1=1024,8,64 --LL=4096,8,64"*) ;;
  *) echo "other caches: $*" >&2; exit 3 ;;
esac
shift 7
case "$*" in
  "PROGRAM - none 128 32 4096") fetched=1000 written=100 ;;
  "PROGRAM naive forward 128 32 4096") fetched=17384 written=8292 ;;
  "PROGRAM naive step 128 32 4096") fetched=50152 written=16484 ;;
  "PROGRAM flash forward 128 32 4096") fetched=9192 written=4196 ;;
  "PROGRAM flash step 128 32 4096") fetched=25576 written=8292 ;;
  *) echo "no such run: $*" >&2; exit 3 ;;
esac
echo "==1== Events    : Ir ILmr DLmr DLmw ILdmr DLdmr DLdmw" >&2
echo "==1== Collected : 900 0 $fetched 0 0 0 $written" >&2
"""
PROGRAM = """#!/bin/sh
test "$*" = "model - 128 32 4096" || { echo "no such model: $*" >&2; exit 3; }
printf 'naive forward 1048576\\nnaive backward 2097152\\nflash forward 524288\\nflash backward 1048576\\n'
"""
TABLE = """| 128 | forward | naive | 1.00 | 1.50 | 1.00 | 0.50 | 1.50 |
| 128 | forward | flash | 0.50 | 0.75 | 0.50 | 0.25 | 1.50 |
| 128 | backward | naive | 2.00 | 2.50 | 2.00 | 0.50 | 1.25 |
| 128 | backward | flash | 1.00 | 1.25 | 1.00 | 0.25 | 1.25 |
"""


def script(folder, name, text):
    file = pathlib.Path(folder, name)
    file.write_text(text)
    file.chmod(0o755)
    return file


class Traffic(unittest.TestCase):
    def test_lines_are_those_of_the_last_level_fetched_and_written_back(self):
        self.assertEqual(traffic.lines_moved(REPORT), (321, 842))

    def test_a_report_without_events_ends_the_script(self):
        with self.assertRaisesRegex(SystemExit, "reported no events"):
            traffic.lines_moved("==1== I   refs: 900\n")

    def test_a_pass_is_what_its_run_moves_beyond_the_one_before(self):
        moved = traffic.passes(none=(100, 10), forward=(103, 12), step=(110, 13))
        self.assertEqual(moved, {"forward": (3 * 64, 2 * 64), "backward": (7 * 64, 1 * 64)})

    def test_a_row_has_both_sums_and_their_ratio(self):
        row = traffic.row(256, "naive", "forward", 2 * 2**20, 2**20, 2**19)
        self.assertEqual(row, ["256", "forward", "naive", "2.00", "1.50", "1.00", "0.50", "0.75"])

    def run_script(self, folder, program, tokens="128"):
        return subprocess.run(
            [sys.executable, SCRIPT, "--tokens", tokens, "--head-size", "32", "--l1", "1024", "--ll", "4096",
             "--program", program],
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True, text=True)

    def test_each_run_is_simulated_with_its_caches_and_stands_in_its_row(self):
        with tempfile.TemporaryDirectory() as folder:
            program = script(folder, "one_pass", PROGRAM)
            script(folder, "valgrind", VALGRIND.replace("PROGRAM", str(program)))
            run = self.run_script(folder, program)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(run.stdout.split("|--:|\n")[1], TABLE)

    def test_a_run_that_fails_ends_the_script_with_what_it_said(self):
        with tempfile.TemporaryDirectory() as folder:
            program = script(folder, "one_pass", PROGRAM)
            script(folder, "valgrind", VALGRIND.replace("PROGRAM", str(program)))
            run = self.run_script(folder, program, tokens="129")
        self.assertEqual(run.returncode, 1)
        self.assertTrue(run.stderr.endswith(":\nno such model: model - 129 32 4096\n"), run.stderr)

    def test_without_valgrind_there_is_one_line(self):
        run = subprocess.run([sys.executable, SCRIPT], env={"PATH": ""}, capture_output=True, text=True)
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stderr, "traffic: valgrind is missing; apt-get install valgrind\n")
        self.assertEqual(run.stdout, "")


if __name__ == "__main__":
    unittest.main()

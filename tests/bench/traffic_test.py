#!/usr/bin/env python3
"""What bench/traffic/traffic.py makes of the reports of valgrind, which need not be there."""

import importlib.util
import pathlib
import subprocess
import sys
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

    def test_without_valgrind_there_is_one_line(self):
        run = subprocess.run([sys.executable, SCRIPT], env={"PATH": ""}, capture_output=True, text=True)
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stderr, "traffic: valgrind is missing; apt-get install valgrind\n")
        self.assertEqual(run.stdout, "")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""`tilegrad check --attention`: `check_attention_test.py <tilegrad>`."""

import subprocess
import sys
import unittest

PROGRAM = ""


def tilegrad(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


class CheckAttention(unittest.TestCase):
    def test_naive_flash_and_differences_agree_under_every_mask(self):
        for mask in ("random", "causal", "none"):
            with self.subTest(mask):
                result = tilegrad("check", "--attention", "--mask", mask, "--b", 1, "--h", 2, "--kv-heads", 1, "--q-len", 5,
                                  "--kv-len", 4, "--d", 3)  # fmt: skip
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
                lines = result.stdout.splitlines()
                self.assertIn(f"q (1, 5, 2, 3), k and v (1, 4, 1, 3), f64, mask: {mask}", lines[0])
                self.assertEqual([line.split()[:2] for line in lines[2:]],
                                 [[loss, tensor] for loss in ("sum", "random") for tensor in ("dq", "dk", "dv")])  # fmt: skip
                self.assertTrue(all(line.endswith(" ok") for line in lines[2:]))

    def test_wrong_options_are_refused(self):
        self.assertNotEqual(tilegrad("check", "--mask", "random").returncode, 0)
        result = tilegrad("check", "--attention", "--h", 3, "--kv-heads", 2)
        self.assertIn("2 key/value heads do not divide 3 query heads", result.stderr)
        self.assertNotEqual(result.returncode, 0)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()

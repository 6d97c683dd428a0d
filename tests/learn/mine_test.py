#!/usr/bin/env python3
"""A learner's attention and checkpoint in the program: `mine_test.py <tilegrad>`."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "learn"))

import exercises  # noqa: E402
import learn  # noqa: E402

PROGRAM = ""
EXERCISES = {e.name[3:]: e for e in exercises.all_exercises()}
TINY = ["--task", "sort", "--layers", "2", "--heads", "4", "--width", "16", "--batch", "4", "--steps", "8", "--quiet",
        "--eval-every", "4"]  # fmt: skip


def tilegrad(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)


class Mine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.scratch = pathlib.Path(scratch.name)
        cls.course = cls.scratch / "course"  # the same for all, so that what one test compiled serves the next
        # Without preparing the checks, which nothing here needs.
        (cls.course / ".learn").mkdir(parents=True)

    def setUp(self):
        for name in ("flash_forward", "grouped_heads", "flash_backward", "checkpoint"):
            (self.course / EXERCISES[name].file).unlink(missing_ok=True)
        learn.lay(learn.Course(self.course))

    def solve(self, *names, mistake=None):
        for name in names:
            (self.course / EXERCISES[name].file).write_text(EXERCISES[name].with_mistake(mistake))

    def compare(self, variants, *more):
        result = tilegrad("compare", *TINY, "--variants", variants, "--mine", self.course, "--out", self.scratch / "out",
                          "--overwrite", *more)  # fmt: skip
        return result, [self.losses(name) for name in variants.split(",") if result.returncode == 0]

    def losses(self, name):
        lines = (self.scratch / "out" / name / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
        self.assertEqual(len(losses), 8)
        return losses

    def farthest(self, a, b):
        return max(abs(x - y) for x, y in zip(a, b))

    def test_a_right_kernel_follows_the_library_and_a_wrong_one_leaves_it(self):
        self.solve("flash_forward", "flash_backward", "grouped_heads", "checkpoint")
        result, curves = self.compare("mha-flash,mha-mine,mha-mine-ckpt,mha-flash-ckpt-mine,mqa,mqa-mine")
        self.assertEqual(result.returncode, 0, result.stderr)
        flash, mine, mine_checkpointed, checkpointed_by_mine, mqa, mqa_mine = curves
        self.assertLess(self.farthest(flash, mine), 1e-5)
        self.assertEqual(mine, mine_checkpointed)
        self.assertEqual(flash, checkpointed_by_mine)  # to the last bit
        self.assertLess(self.farthest(mqa, mqa_mine), 1e-5)
        self.solve("flash_backward", mistake="lse-forgotten")
        result, (flash, mine) = self.compare("mha-flash,mha-mine")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLess(abs(flash[0] - mine[0]), 1e-5)  # forward is right
        self.assertGreater(self.farthest(flash, mine), 1e-4)

    def test_a_checkpoint_with_another_mask_leaves_it(self):
        self.solve("flash_forward", "flash_backward", "grouped_heads", "checkpoint")
        result, (flash, mine) = self.compare("mha-flash-ckpt,mha-flash-ckpt-mine", "--dropout", "0.2")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(flash, mine)
        self.solve("checkpoint", mistake="another-mask")
        result, (flash, mine) = self.compare("mha-flash-ckpt,mha-flash-ckpt-mine", "--dropout", "0.2")
        self.assertEqual(flash[0], mine[0])
        self.assertGreater(self.farthest(flash, mine), 1e-4)

    def test_what_goes_wrong_is_said_in_a_line(self):
        self.assertIn("mha-mine needs --mine DIR", tilegrad("compare", "--variants", "mha-mine").stderr)
        self.assertIn("holds no course", tilegrad("train", *TINY, "--mine", self.scratch).stderr)
        result, _ = self.compare("mha-mine")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("mine: flash_forward is not written yet", result.stderr)
        self.solve("flash_forward", "flash_backward")
        self.assertIn("plain and causal, without window 3", self.compare("mha-mine", "--window", "3")[0].stderr)
        forward = self.course / EXERCISES["flash_forward"].file
        forward.write_text("int broken = ;\n")
        result, _ = self.compare("mha-mine")
        self.assertIn("05_flash_forward.cpp does not compile", result.stderr)
        forward.write_text(EXERCISES["flash_forward"].solution().replace("const double scale", "__builtin_trap(); const double scale"))
        result, _ = self.compare("mha-mine")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("mha-mine failed with exit code 13", result.stderr)  # 128 + SIGILL or SIGTRAP

    def test_helpers_of_the_same_name_do_not_meet(self):
        for name in ("flash_forward", "flash_backward"):
            file = self.course / EXERCISES[name].file
            text = EXERCISES[name].solution().replace("  const double scale = 1 / std::sqrt(q.cols);", "  const double scale = my_scale(q.cols);")
            helper = '#include "course.h"\ndouble my_scale(int d) { return 1 / std::sqrt(d); }'
            file.write_text(text.replace('#include "course.h"', helper))
        result, (flash, mine) = self.compare("mha-flash,mha-mine")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLess(self.farthest(flash, mine), 1e-4)

    def test_the_lab_measures_it(self):
        self.solve("flash_forward", "flash_backward", "grouped_heads", "checkpoint")
        out = self.scratch / "lab"
        options = ["lab", "flash", "--seq", "48", "--d", "8", "--heads", "2", "--repeats", "1", "--out", out]
        self.assertIn("--mine needs --causal", tilegrad(*options, "--mine", self.course).stderr)
        result = tilegrad(*options, "--causal", "--mine", self.course)
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = [line.split() for line in result.stdout.splitlines() if line.strip().startswith("48")]
        self.assertEqual([row[1] for row in rows], ["naive", "naive", "flash", "flash", "mine", "mine"])

    def test_a_sweep_measures_it_until_it_is_too_slow_and_then_goes_on_without_it(self):
        self.solve("flash_forward", "flash_backward", "grouped_heads", "checkpoint")
        out = self.scratch / "sweep"
        result = tilegrad("lab", "flash", "--seq", "48", "--d", "8", "--heads", "1", "--repeats", "1", "--causal", "--sweep",
                          "--memory-limit", "1MiB", "--mine", self.course, "--out", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        lengths = {}
        for row in json.loads((out / "flash.json").read_text())["rows"]:
            lengths.setdefault(row["kernel"], []).append(row["seq"])
        self.assertEqual(lengths["mine"][:6], [48, 48, 64, 64, 96, 96])
        self.assertEqual(lengths["mine"], lengths["flash"][: len(lengths["mine"])])
        self.assertIn("naive needs more than 1.0 MiB", result.stdout)

        # Fifteen million operations in plain loops take longer than two milliseconds on any processor.
        out = self.scratch / "short"
        short = tilegrad("lab", "flash", "--seq", "48", "--d", "64", "--heads", "8", "--repeats", "1", "--causal", "--sweep",
                         "--time-limit", "0.002", "--mine", self.course, "--out", out)
        self.assertIn("mine takes more than 0.002 s at T = 64 and is left out from there on", short.stdout)
        rows = json.loads((out / "flash.json").read_text())["rows"]
        self.assertEqual({row["seq"] for row in rows if row["kernel"] == "mine"}, {48, 64})


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()

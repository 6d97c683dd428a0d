#!/usr/bin/env python3
"""The course keeps its promises: stubs, solutions and known mistakes of every exercise, and what happens to a learner."""

import concurrent.futures
import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "learn"))

import exercises  # noqa: E402
import learn  # noqa: E402
import workshop  # noqa: E402

EXERCISES = exercises.all_exercises()
OBJECTS = workshop.prepare(say=lambda text: None)


def for_all(function):
    """Of every exercise, at once: checks are processes of their own."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip([e.name for e in EXERCISES], pool.map(function, EXERCISES)))


def check_text(exercise, text, **options):
    """What checking a learner's file with this text says."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, exercise.file)
        file.write_text(text)
        return workshop.check(exercise, file, OBJECTS, **options)


def call(*arguments):
    """A command in this process: exit code, and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            code = learn.main([str(a) for a in arguments])
        except workshop.LearnError as error:
            return 1, f"learn: {error}"
    return code, out.getvalue()


class TheExercises(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """Every stub with its check: unsolved, or with `--as` with a known mistake in its place."""
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name)
        parts = [OBJECTS / (name + ".o") for name in ("check", "cases", "course", "heads")]

        def build(exercise):
            (cls.folder / exercise.file).write_text(exercise.stub())
            own = [cls.folder / exercise.file, OBJECTS / (exercise.name + ".o")]
            subprocess.run([workshop.COMPILER, *workshop.FLAGS, "-Wall", *own, *parts, "-o", cls.folder / exercise.name],
                           check=True)  # fmt: skip

        for_all(build)

    def run_check(self, exercise, *arguments):
        return subprocess.run([self.folder / exercise.name, *arguments], capture_output=True, text=True)

    def test_each_solution_passes(self):
        for name, (code, said) in for_all(lambda e: check_text(e, e.solution())).items():
            with self.subTest(name):
                self.assertEqual(code, workshop.RIGHT, said)

    def test_no_solution_is_long(self):
        for exercise in EXERCISES:
            with self.subTest(exercise.name):
                lines = sum(len(region) for region in exercise.regions())
                self.assertGreater(lines, 0)
                self.assertLessEqual(lines, 60 if exercise.name == "09_tape" else 40)

    def test_each_stub_compiles_and_is_called_unsolved(self):
        for exercise in EXERCISES:
            with self.subTest(exercise.name):
                result = self.run_check(exercise)
                self.assertEqual(result.returncode, workshop.NOT_WRITTEN, result.stderr)
                self.assertIn(f"{name_of_first_call(exercise)} is not written yet", result.stdout)

    def test_each_mistake_is_recognised_and_as_no_other(self):
        for exercise in EXERCISES:
            self.assertGreaterEqual(len(exercise.mistakes()), 5)
            for mistake in exercise.mistakes():
                with self.subTest(exercise.name, mistake=mistake):
                    result = self.run_check(exercise, "--as", mistake)
                    self.assertEqual(result.returncode, workshop.WRONG, result.stdout)
                    self.assertTrue(result.stdout.rstrip().endswith(f"[{mistake}]"), result.stdout)

    def test_each_mistake_that_is_marked_is_described(self):
        for exercise in EXERCISES:
            with self.subTest(exercise.name):
                marked = {m.group(1) for line in exercise.text.splitlines() if (m := exercises.MISTAKE.match(line))}
                self.assertEqual(marked, set(exercise.mistakes()))

    def test_each_page_has_three_hints_and_names_every_function(self):
        for exercise in EXERCISES:
            with self.subTest(exercise.name):
                self.assertEqual(len(exercise.hints), 3)
                self.assertTrue(all(len(hint) > 20 for hint in exercise.hints))
                for function in exercise.functions():
                    self.assertIn(f"{function}", exercise.page)


def name_of_first_call(exercise):
    """The function that a check calls first; the tape's first case is that of `add`."""
    return "add" if exercise.name == "09_tape" else exercise.functions()[0]


class WhatALearnerWrites(unittest.TestCase):
    def setUp(self):
        self.softmax = EXERCISES[0]

    def check_body(self, body, **options):
        text = self.softmax.solution().replace("  double largest = -kInfinity, sum = 0;", body, 1)
        self.assertIn(body, text)
        return check_text(self.softmax, text, **options)

    def test_a_wrong_element_is_shown_with_its_place(self):
        text = self.softmax.solution().replace("dx(i) = y(i) * (dy(i) - sum)", "dx(i) = i == 2 ? 5 : y(i) * (dy(i) - sum)")
        code, said = check_text(self.softmax, text)
        self.assertEqual(code, workshop.WRONG)
        self.assertRegex(said, r"wrong in the case: 4 elements\n  dx is wrong, first at element 2: expected \S+, got 5\n")
        self.assertRegex(said, r"a finite difference of the loss gives")
        self.assertIn("1 of its 4 elements are wrong", said)
        self.assertNotIn("known mistake", said)

    def test_a_head_is_named(self):
        grouped = EXERCISES[5]
        code, said = check_text(grouped, grouped.with_mistake("last-head"))
        self.assertEqual(code, workshop.WRONG)
        self.assertRegex(said, r"d[kv] is wrong, first at head \d+, row \d+, column \d+: expected")

    def test_the_first_error_of_the_compiler_is_shown(self):
        code, said = self.check_body("  double largest = -kInfinity, sum = 0\n  int broken = ;")
        self.assertEqual(code, workshop.WRONG)
        self.assertRegex(said, r"^01_softmax.cpp does not compile:\n01_softmax.cpp:\d+:\d+: error: ")
        self.assertEqual(said.count("error: "), 1)

    def test_a_function_that_is_missing_is_named(self):
        code, said = check_text(self.softmax, self.softmax.solution().replace("void softmax(", "void my_softmax("))
        self.assertEqual(code, workshop.WRONG)
        self.assertIn("the function softmax(Vector) is missing", said)

    def test_an_index_outside_of_a_view_is_named_with_its_line(self):
        code, said = self.check_body("  double largest = x(x.size), sum = 0;")
        self.assertEqual(code, workshop.WRONG)
        self.assertRegex(said, r"line \d+: softmax\(x\) has 1 elements, so there is none with index 1")

    def test_an_index_outside_of_an_array_is_named_with_its_line(self):
        code, said = self.check_body("  std::vector<double> a(x.size);\n  double largest = a[x.size], sum = 0;")
        self.assertEqual(code, workshop.WRONG)
        self.assertRegex(said, r"01_softmax.cpp:\d+: reads or writes outside of an array")

    def test_a_crash_is_named(self):
        code, said = self.check_body("  int* nowhere = nullptr; *nowhere = x.size;\n  double largest = 0, sum = 0;")
        self.assertEqual(code, workshop.WRONG)
        self.assertRegex(said, r"01_softmax.cpp:\d+: .*null pointer")
        code, said = self.check_body("  std::abort();\n  double largest = 0, sum = 0;")
        self.assertEqual(code, workshop.WRONG)
        self.assertIn("SIGABRT", said)

    def test_a_loop_without_an_end_is_stopped(self):
        code, said = self.check_body("  for (volatile int i = 0; i >= 0;) {}\n  double largest = 0, sum = 0;", time_limit=1)
        self.assertEqual(code, workshop.WRONG)
        self.assertIn("no end after 1 s; is there a loop that never stops?", said)


class TheFolder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name, "my course")
        self.addCleanup(setattr, learn, "LAST_COURSE", learn.LAST_COURSE)
        learn.LAST_COURSE = pathlib.Path(scratch.name, "last")

    def solve(self, number):
        exercise = EXERCISES[number - 1]
        (self.folder / exercise.file).write_text(exercise.solution())

    def test_from_the_first_command_to_the_first_solution(self):
        self.assertIn("there is no course yet", call()[1])
        self.assertEqual(call("start", self.folder)[0], 0)
        self.assertRegex(call()[1], r"1  softmax and its backward .* next\n")
        self.assertEqual(call("check")[0], workshop.NOT_WRITTEN)
        self.assertIn("not solved", call("show", 1)[1])
        self.assertIn("hint 1 of 3", call("hint")[1])
        self.assertIn("hint 2 of 3", call("hint")[1])
        self.solve(1)
        code, said = call("check")
        self.assertEqual(code, 0)
        self.assertIn("solved. Next: 02_naive_forward.md", said)
        self.assertRegex(call("status")[1], r"1  softmax and its backward .* solved\n")
        self.assertIn("std::exp(x(i) - largest)", call("show", 1)[1])
        self.assertIn("scale * dot", call("show", 2, "--give-up")[1])
        (self.folder / "01_softmax.cpp").write_text("")
        self.assertIn("solved, and changed since", call()[1])
        self.assertIn("no exercise 10", call("check", 10)[1])

    def test_its_own_program_finds_the_course(self):
        call("start", self.folder)
        result = subprocess.run([self.folder / "learn", "status"], capture_output=True, text=True, cwd="/")
        self.assertIn("next: read 01_softmax.md", result.stdout)

    def test_nothing_that_a_learner_wrote_is_overwritten(self):
        call("start", self.folder)
        mine, page, gone = (self.folder / n for n in ("01_softmax.cpp", "02_naive_forward.md", "03_naive_backward.cpp"))
        mine.write_text("// mine\n")
        gone.unlink()
        # An update of the course: what was put there is not what would be put there now.
        page.write_text("an old page")
        course = learn.Course(self.folder)
        course.state["laid"]["02_naive_forward.md"] = learn.digest("an old page")
        course.state["laid"]["01_softmax.cpp"] = learn.digest("an old stub")
        course.save()
        said = call("start", self.folder)[1]
        self.assertEqual(mine.read_text(), "// mine\n")
        self.assertIn("kept: 01_softmax.cpp, which you changed", said)
        self.assertEqual((self.folder / ".learn" / "newer" / "01_softmax.cpp").read_text(), EXERCISES[0].stub())
        self.assertIn("renewed: 02_naive_forward.md", said)
        self.assertEqual(page.read_text(), EXERCISES[1].page)
        self.assertEqual(gone.read_text(), EXERCISES[2].stub())

    def test_a_folder_that_does_not_suit_is_refused(self):
        self.assertIn("lies inside the tree", call("start", TREE / "course")[1])
        self.folder.mkdir()
        (self.folder / "letters").write_text("")
        self.assertIn("holds other files and no course", call("start", self.folder)[1])
        self.assertIn("is not a folder", call("start", self.folder / "letters")[1])
        self.assertIn("Not a directory", call("start", self.folder / "letters" / "course")[1])
        self.assertIn("holds no course", call("--dir", self.folder, "status")[1])
        self.assertEqual([p.name for p in self.folder.iterdir()], ["letters"])


if __name__ == "__main__":
    unittest.main()

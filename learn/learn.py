#!/usr/bin/env python3
"""The course: exercises to fill in, checked one at a time. Called as `./dev learn`, or as `learn` in a course's folder."""

import argparse
import hashlib
import json
import pathlib
import shlex
import sys
import time

import exercises
import workshop
from workshop import NOT_WRITTEN, RIGHT, WRONG, LearnError

LAST_COURSE = workshop.TREE / "build" / "learn" / "last"  # where the last course is


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Course:
    """The folder of a learner. `.learn/state.json` remembers what was put into it, what is solved, and the hints."""

    def __init__(self, folder):
        self.folder = folder
        self.exercises = exercises.all_exercises()
        self.state = {"laid": {}, "solved": {}, "hints": {}}
        with_state = folder / ".learn" / "state.json"
        if with_state.exists():
            try:
                self.state.update(json.loads(with_state.read_text()))
            except ValueError:
                raise LearnError(f"{with_state} is damaged; delete it, your exercises stay") from None

    def save(self):
        (self.folder / ".learn").mkdir(exist_ok=True)
        new = self.folder / ".learn" / "state.new"
        new.write_text(json.dumps(self.state, indent=2) + "\n")
        new.rename(self.folder / ".learn" / "state.json")

    def file(self, exercise):
        return self.folder / exercise.file

    def get(self, number):
        """An exercise by its number, or the next one."""
        if number is None:
            return self.next() or self.exercises[-1]
        for exercise in self.exercises:
            if exercise.number == number:
                return exercise
        raise LearnError(f"there is no exercise {number}; they are 1 to {len(self.exercises)}")

    def next(self):
        return next((e for e in self.exercises if e.name not in self.state["solved"]), None)

    def text_of(self, exercise):
        try:
            return self.file(exercise).read_text(errors="replace")
        except OSError:
            raise LearnError(f"{self.file(exercise)} is missing; `learn start` brings it back") from None


# --- start ----------------------------------------------------------------------------------------------------


def wanted_files(folder):
    """What a new course consists of."""
    files = {"README.md": (workshop.ROOM / "start.md").read_text(),
             "compile_flags.txt": f"-std=c++20\n-I{workshop.ROOM}\n",
             "learn": f'#!/bin/sh\nexec python3 {shlex.quote(str(workshop.ROOM / "learn.py"))} '
                      f'--dir {shlex.quote(str(folder))} "$@"\n'}  # fmt: skip
    for exercise in exercises.all_exercises():
        files[exercise.file] = exercise.stub()
        files[exercise.name + ".md"] = exercise.page
    return files


def lay(course):
    """Adds what is missing, and updates what the learner has not touched. Says what it did, file by file."""
    said = []
    for name, text in wanted_files(course.folder).items():
        path, laid = course.folder / name, course.state["laid"].get(name)
        if not path.exists():
            path.write_text(text)
            said.append(f"  new: {name}")
        elif digest(path.read_text(errors="replace")) == laid:
            if digest(text) != laid:
                path.write_text(text)
                said.append(f"  renewed: {name}")
        elif digest(text) != laid and laid is not None:
            newer = course.folder / ".learn" / "newer" / name
            newer.parent.mkdir(parents=True, exist_ok=True)
            newer.write_text(text)
            said.append(f"  kept: {name}, which you changed; the course's newer one is {newer}")
            continue
        else:
            continue
        course.state["laid"][name] = digest(text)
    (course.folder / "learn").chmod(0o755)
    return said


def start(folder):
    folder = folder.resolve()
    if folder == workshop.TREE or workshop.TREE in folder.parents:
        raise LearnError(f"{folder} lies inside the tree, where updates would meet your work; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise LearnError(f"{folder} is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ".learn").is_dir():
        raise LearnError(f"{folder} holds other files and no course; choose an empty or a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        course = Course(folder)
        course.save()
        said = lay(course)
        course.save()
        LAST_COURSE.parent.mkdir(parents=True, exist_ok=True)
        LAST_COURSE.write_text(str(folder))
    except OSError as error:
        raise LearnError(f"{error.filename}: {error.strerror}") from None
    print("\n".join([f"the course is in {folder}", *said] if said else [f"{folder} is complete, nothing changed"]))
    workshop.prepare()
    exercise = course.next()
    if exercise:
        print(f"next: read {exercise.name}.md, fill in {exercise.file}, then ./dev learn check")
    return RIGHT


# --- the other commands ---------------------------------------------------------------------------------------


def status(course):
    upcoming = course.next()
    print(f"the course in {course.folder}\n")
    for exercise in course.exercises:
        solved = course.state["solved"].get(exercise.name)
        word = "next" if exercise is upcoming else ""
        if solved:
            changed = not course.file(exercise).exists() or digest(course.text_of(exercise)) != solved
            word = "solved, and changed since" if changed else "solved"
        star = "*" if exercise.number == 9 else " "
        print(f"  {exercise.number}{star} {exercise.title:<52} {word}".rstrip())
    print("\n" + (f"next: read {upcoming.name}.md, fill in {upcoming.file}, then: learn check" if upcoming else "all solved"))
    return RIGHT


def check(course, number):
    exercise = course.get(number)
    text = course.text_of(exercise)
    code, said = workshop.check(exercise, course.file(exercise), workshop.prepare())
    print(said, flush=True)
    if code == RIGHT:
        course.state["solved"][exercise.name] = digest(text)
        course.save()
        upcoming = course.next()
        print(f"solved. Next: {upcoming.name}.md" if upcoming else "solved. That was the last one.")
    elif code == WRONG:
        print("learn hint gives a hint")
    else:
        print(f"read {exercise.name}.md and fill in {exercise.file}")
    return code


def hint(course, number):
    exercise = course.get(number)
    given = course.state["hints"].get(exercise.name, 0)
    if given < len(exercise.hints):
        course.state["hints"][exercise.name] = given + 1
        course.save()
    shown = exercise.hints[: given + 1]
    for n, text in enumerate(shown, 1):
        print(f"exercise {exercise.number}, hint {n} of {len(exercise.hints)}:\n{text}\n")
    if given >= len(exercise.hints):
        print("there are no more; learn show --give-up shows the solution")
    return RIGHT


def show(course, number, give_up):
    exercise = course.get(number)
    if exercise.name not in course.state["solved"] and not give_up:
        raise LearnError(f"exercise {exercise.number} is not solved; learn hint gives a hint, show --give-up the solution")
    print(exercise.solution(), end="")
    return RIGHT


def build(course):
    for exercise in course.exercises:
        course.text_of(exercise)  # says which one is missing
    workshop.build_mine(course.folder)
    return RIGHT


def watch(course):
    def seen():
        files = [course.file(e) for e in course.exercises]
        return {path: path.stat().st_mtime_ns for path in files if path.exists()}

    print(f"watching {course.folder}; every save is checked, Ctrl-C ends it", flush=True)
    before = seen()
    while True:
        time.sleep(0.3)
        now = seen()
        for exercise in course.exercises:
            path = course.file(exercise)
            if path in now and now[path] != before.get(path):
                print(f"\n{time.strftime('%H:%M:%S')}  {exercise.file}", flush=True)
                check(course, exercise.number)
        before = now


def chosen_course(folder):
    if folder is None:
        if not LAST_COURSE.exists():
            raise LearnError("there is no course yet; ./dev learn start DIR sets one up, or finds one that is there")
        folder = pathlib.Path(LAST_COURSE.read_text())
    if not (folder / ".learn").is_dir():
        raise LearnError(f"{folder} holds no course; ./dev learn start DIR sets one up")
    return Course(folder)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="learn", description="Exercises to fill in: attention, step by step.")
    parser.add_argument("--dir", type=pathlib.Path, help="the folder of the course; the last one unless given")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("start", help="set up the course in a folder outside the tree").add_argument(
        "folder", metavar="DIR", type=pathlib.Path)  # fmt: skip
    commands.add_parser("status", help="what is solved, and what is next (the default)")
    commands.add_parser("watch", help="check after every save")
    commands.add_parser("build", help="compile exercises 5 to 8 for tilegrad --mine, which does so itself")
    for name, text in (("check", "compile and test one exercise, the next one unless N is given"),
                       ("hint", "the next of three hints"), ("show", "the solution, once it is solved")):  # fmt: skip
        command = commands.add_parser(name, help=text)
        command.add_argument("number", metavar="N", type=int, nargs="?")
        if name == "show":
            command.add_argument("--give-up", action="store_true", help="show it even if it is not solved")
    return parser.parse_args(arguments)


def main(arguments):
    given = parse(arguments)
    if given.command == "start":
        return start(given.folder)
    course = chosen_course(given.dir)
    commands = {None: lambda: status(course), "status": lambda: status(course), "build": lambda: build(course), "watch": lambda: watch(course),
                "check": lambda: check(course, given.number), "hint": lambda: hint(course, given.number),
                "show": lambda: show(course, given.number, given.give_up)}  # fmt: skip
    return commands[given.command]()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LearnError as error:
        sys.exit(f"learn: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

"""What every comparison needs, without PyTorch: options with one line for an error, files, child processes."""

import argparse
import csv
import json
import math
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST_OF_OTHERS = 0.1
NAME = pathlib.Path(sys.argv[0]).stem


class Parser(argparse.ArgumentParser):
    """Options whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{NAME}: {message}\n")


def whole_number(text):
    """An option's value that is a whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number from 1 on")
    return int(text)


def duration(text):
    """An option's value that is a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"`{text}` is not a positive number of seconds")
    return value


def processors():
    return len(os.sched_getaffinity(0))


def thread_count(text):
    """An option's value that is a number of threads. More than there are processors would wait for each other."""
    value = whole_number(text)
    if value > processors():
        raise argparse.ArgumentTypeError(f"{value} threads on {processors()} processors")
    return value


def busy_mark(line):
    """What is shown behind a row during which other programs took more than a tenth of the processors."""
    return "  busy" if line["others"] > MOST_OF_OTHERS else ""


def note_busy(lines):
    busy = sum(line["others"] > MOST_OF_OTHERS for line in lines)
    if busy:
        print(f"{NAME}: in {busy} of {len(lines)} rows, marked busy, other programs took more than a tenth of the "
              "processors: they do not count", file=sys.stderr)


def write_csv(path, columns, lines):
    """Replaces the file atomically, so that nobody reads half of it, and says where it is."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(lines)
        temporary.replace(path)
    except OSError as error:
        sys.exit(f"{NAME}: {path}: {error.strerror}")
    print(f"{path} has all figures.")


class Child:
    """A process that answers each line of its standard input with a line of JSON. At first it says something about
    itself, also as JSON. `builder` is the command that makes its program.
    """

    def __init__(self, command, builder=NAME):
        self.name = pathlib.Path(command[0]).name
        # It chooses OpenBLAS's kernels itself, as for any user.
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                            env=environment)
        except OSError as error:
            sys.exit(f"{NAME}: {command[0]}: {error.strerror}; {builder} builds it")
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{NAME}: {self.name} stopped with exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, line):
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # then there is no answer either
        return self.answer()

    def peak_rss(self):
        """Bytes of memory that the process had at most. getrusage would count what its parent had before exec."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

    def close(self):
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

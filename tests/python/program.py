"""The program `tilegrad` beside the module."""

import os
import pathlib
import subprocess

import pytest


def program():
    """The program, compiled with the flags of the module: others contract multiplications and additions elsewhere."""
    built = pathlib.Path(__file__).parents[2] / "build/release/tilegrad"
    return os.environ.get("TILEGRAD_PROGRAM") or (str(built) if built.exists() else None)


needs_program = pytest.mark.skipif(program() is None, reason="the program tilegrad has not been built")


def run(*arguments):
    """What the program writes to standard output."""
    return subprocess.run([program(), *map(str, arguments)], check=True, capture_output=True).stdout

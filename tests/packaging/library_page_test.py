#!/usr/bin/env python3
"""Each C++ and CMake snippet of docs/library.md stands, line by line, in a file that a test compiles or configures."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def lines(text):
    """A snippet may leave lines out between those that it quotes, but not change one."""
    return [line for line in text.splitlines() if line.strip()]


def quoted_from(snippet, text):
    rest = iter(lines(text))
    return all(line in rest for line in lines(snippet))


def main():
    files = {"cpp": sorted((ROOT / "examples").glob("*.cpp")),
             "cmake": sorted((ROOT / "tests/packaging").glob("*/CMakeLists.txt"))}
    page = (ROOT / "docs/library.md").read_text()
    snippets = re.findall(r"^```(cpp|cmake)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    faults = [snippet for kind, snippet in snippets
              if not any(quoted_from(snippet, path.read_text()) for path in files[kind])]
    for fault in faults:
        print(f"docs/library.md quotes what no tested file holds:\n{fault}")
    sys.exit(1 if faults or len(snippets) < 5 else 0)


main()

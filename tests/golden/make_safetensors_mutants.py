"""Writes safetensors_mutants.jsonl: damaged safetensors files, and whether the `safetensors` package reads them.

    pip install safetensors && python3 tests/golden/make_safetensors_mutants.py
"""
import json
import pathlib
import random
import struct

import safetensors

REFUSED, READ = 220, 80


def file_of(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SEEDS = [
    ({"a": tensor("F32", [2, 3], 0, 24), "b": tensor("I32", [2], 24, 32)}, bytes(range(32))),
    ({"__metadata__": {"k": "v", "": "w"}, "h": tensor("BF16", [2, 1], 0, 4), "m": tensor("BOOL", [3], 4, 7)}, bytes(7)),
    ({"e": tensor("F32", [0, 5], 8, 8), "s": tensor("F64", [], 0, 8)}, bytes(8)),
]
TOKENS = [b"0", b"1", b"-1", b"1.0", b"1e1", b"4294967296", b"18446744073709551616", b"null", b"{}", b"[]", b'"F32"',
          b'"F64"', b'"BOOL"', b'"a"', b" ", b"\n", b",", b":", b"]", b"}", b"\0", b"\xff", b"\\u0061"]


def mutant(draw):
    """One of the seeds with one to three changes: to a piece of its header, to its length, or to its data."""
    header, data = draw.choice(SEEDS)
    text = json.dumps(header, separators=(",", ":")).encode()
    length = None
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(text))
        end = min(len(text), at + draw.choice([0, 1, 1, 2, 3]))
        kind = draw.randrange(8)
        if kind < 4:
            text = text[:at] + draw.choice(TOKENS) + text[end:]
        elif kind == 4:  # a number for another one
            digits = [i for i, c in enumerate(text) if 48 <= c < 58]
            i = draw.choice(digits) if digits else at
            text = text[:i] + str(draw.randint(0, 40)).encode() + text[i + 1:]
        elif kind == 5:  # a piece twice
            text = text[:end] + text[at:]
        elif kind == 6:
            data = data[:-1] if draw.random() < .5 else data + b"\0"
        else:
            length = len(text) + draw.choice([-8, -1, 1, 8, 1 << 40])
    content = file_of(text, data)
    return content if length is None else struct.pack("<Q", length % (1 << 64)) + content[8:]


def reads(content):
    try:
        safetensors.deserialize(content)
        return True
    except safetensors.SafetensorError:
        return False


def main():
    draw = random.Random(1)
    found = {True: set(), False: set()}
    # Few mutants are read, and those say most.
    while len(found[True]) < READ or len(found[False]) < REFUSED:
        content = mutant(draw)
        verdict = reads(content)
        if len(found[verdict]) < (READ if verdict else REFUSED):
            found[verdict].add(content)
    lines = [json.dumps({"reads": verdict, "file": content.hex()})
             for verdict, contents in found.items() for content in sorted(contents)]
    pathlib.Path(__file__).with_name("safetensors_mutants.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""On a disk that is full a run ends with one line and a code that is not 0, and what had been saved can be resumed.

    python3 tests/train/full_disk_test.py build/release/tilegrad

Needs a small file system of its own, which takes the right to mount one; without it the test is skipped (code 77).
"""
import os
import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77
SETTINGS = ["--task", "copy", "--steps", "200", "--layers", "1", "--width", "16", "--heads", "2", "--batch", "4",
            "--save-every", "20", "--quiet"]


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def check_refused(result, what):
    lines = [line for line in result.stderr.splitlines() if not line.startswith("info: ")]
    assert result.returncode != 0, f"{what}: success on a full disk"
    assert len(lines) == 1 and lines[0].startswith("tilegrad: "), f"{what}: {result.stderr}"
    assert "No space left on device" in lines[0], f"{what}: {lines[0]}"


def fill(disk, keep):
    """Leaves `keep` bytes of the disk free."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "ballast").write_bytes(bytes(max(0, free - keep)))


def main():
    program, = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        disk, whole = pathlib.Path(temporary, "disk"), pathlib.Path(temporary, "whole")
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True)
        if mounted.returncode != 0:
            print("skipped: no right to mount a file system")
            return SKIPPED
        try:
            assert run(program, "train", *SETTINGS, "--out", whole).returncode == 0
            assert run(program, "train", *SETTINGS, "--out", disk / "run", "--stop-after", "30").returncode == 0
            for keep in (0, 4096, 20000):
                fill(disk, keep)
                check_refused(run(program, "train", *SETTINGS, "--out", disk / "other"), f"new run, {keep} bytes")
                check_refused(run(program, "train", "--resume", disk / "run", "--quiet"), f"resume, {keep} bytes")
                (disk / "ballast").unlink()
            assert run(program, "train", "--resume", disk / "run", "--quiet").returncode == 0
            for name in ("model.safetensors", "state.safetensors"):
                assert (disk / "run" / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"
        finally:
            subprocess.run(["umount", disk], check=True)
    print("a full disk loses nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Paths that callers give."""

import os

from tilegrad._core import Error


def checked_path(path, caller):
    """A str, bytes or os.PathLike as str."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise Error(f"{caller}: {path!r} is not a path") from None

"""What the tests of training share: a run of a fraction of a second, and what it computes."""

import pytest

TINY = {"layers": 1, "heads": 2, "width": 16, "steps": 6, "batch": 4, "eval_every": 3, "warmup": 0}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def results_of(lines):
    """What a run computes, without what it measures."""
    measured = ("ms", "tokens_per_s", "live_bytes", "peak_bytes", "at_peak")
    return [{name: value for name, value in line.items() if name not in measured} for line in lines]

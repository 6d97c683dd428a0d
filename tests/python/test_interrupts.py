"""Signals and other threads while a run trains."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import tilegrad
from problems import interpreter_is_free_during
from tilegrad import _core
from training_problems import TINY, in_a_folder_of_its_own, results_of  # noqa: F401

INTERRUPTED = """
import pathlib, signal, sys, threading, time
import tilegrad

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background has inherited that it is ignored
error = None
def train():
    global error
    try:
        tilegrad.train("sort", out="run", steps=10**6, save_every=0, layers=1, heads=2, width=16, batch=4)
    except KeyboardInterrupt as interrupt:
        error = str(interrupt)

def interrupt():  # runs while train() does, so the interpreter is free
    metrics = pathlib.Path("run/metrics.jsonl")
    while not metrics.exists() or not metrics.read_text():
        time.sleep(.01)
    signal.raise_signal(signal.SIGINT)

handler = signal.getsignal(signal.SIGINT)
other = threading.Thread(target=train if sys.argv[1] == "other thread" else interrupt)
other.start()
(interrupt if sys.argv[1] == "other thread" else train)()
other.join()
step = len(tilegrad.load("run").steps["step"])
assert error == f"train: stopped after step {step} and saved in run, where train(resume=...) goes on", error
assert tilegrad.load("run").model.parameter_count > 0
assert signal.getsignal(signal.SIGINT) is handler
try:
    signal.raise_signal(signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    print("Python's own handler is back")
"""


@pytest.mark.parametrize("where", ["main thread", "other thread"])
def test_ctrl_c_saves_and_raises(where):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, where], capture_output=True, text=True, timeout=300)
    assert done.stdout == "Python's own handler is back\n", done.stderr


TERMINATED = """
import pathlib, signal, sys, threading, time
import tilegrad

if sys.argv[1] == "handler":
    signal.signal(signal.SIGTERM, lambda *_: print("the handler", flush=True))

def terminate():
    metrics = pathlib.Path("run/metrics.jsonl")
    while not metrics.exists() or not metrics.read_text():
        time.sleep(.01)
    signal.raise_signal(signal.SIGTERM)

threading.Thread(target=terminate).start()
try:
    tilegrad.train("sort", out="run", steps=10**6, save_every=0, layers=1, heads=2, width=16, batch=4)
except KeyboardInterrupt as interrupt:
    print(str(interrupt).split(" after step")[0], flush=True)
"""


@pytest.mark.parametrize("disposition, code, output",
                         [("default", -signal.SIGTERM, ""), ("handler", 0, "the handler\ntrain: stopped\n")])
def test_sigterm_saves_and_then_does_what_it_does_elsewhere(disposition, code, output):
    done = subprocess.run([sys.executable, "-c", TERMINATED, disposition], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (code, output), done.stderr
    steps = len(tilegrad.load("run").steps["step"])
    assert steps > 0 and len(tilegrad.train(resume="run", stop_after=1).steps["step"]) == steps + 1


def test_a_signal_in_the_last_step_is_not_lost(monkeypatch):
    run_alone = _core.run_program

    def run_program_until_a_signal(arguments):
        return *run_alone(arguments)[:3], signal.SIGINT

    monkeypatch.setattr(_core, "run_program", run_program_until_a_signal)
    with pytest.raises(KeyboardInterrupt, match="^train: stopped after step 6 and saved in run, complete$"):
        tilegrad.train("sort", out="run", **TINY)


def test_the_interpreter_is_free_during_training_and_in_a_model():
    # Calls of the core alone: what Python and NumPy do before and after may let others run as well.
    arguments = ["train", "--quiet", "--task=sort", "--out=run", "--overwrite", *(f"--{name.replace('_', '-')}={value}"
                                                                                for name, value in TINY.items())]
    assert interpreter_is_free_during(lambda: _core.run_program(arguments), times=20)
    model = tilegrad.load("run").model
    tokens = np.zeros((64, 5), np.int32)
    assert interpreter_is_free_during(lambda: model._core.logits(tokens))


def test_threads_train_one_after_the_other(monkeypatch):
    expected = results_of(tilegrad.train("sort", out="alone", **TINY).metrics)
    running, at_once = [], []
    run_alone = _core.run_program

    def run_program_watched(arguments):
        running.append(None)
        at_once.append(len(running))
        try:
            return run_alone(arguments)
        finally:
            running.pop()

    monkeypatch.setattr(_core, "run_program", run_program_watched)
    threads = [threading.Thread(target=tilegrad.train, args=["sort"], kwargs={"out": f"run{i}"} | TINY)
               for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert at_once == [1, 1, 1]
    assert [results_of(tilegrad.load(f"run{i}").metrics) for i in range(3)] == [expected] * 3

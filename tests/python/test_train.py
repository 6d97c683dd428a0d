"""tilegrad.train and tilegrad.load: the runs of the program, from Python."""

import inspect
import json
import typing
import warnings

import numpy as np
import pytest

import tilegrad
from program import needs_program, run as run_program
from tilegrad import _core
from training_problems import TINY, in_a_folder_of_its_own, results_of  # noqa: F401

TEXT = b"the cat sat on the mat. " * 100


def options_of(settings):
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- The program's runs --------------------------------------------------------------------------------------


@needs_program
@pytest.mark.parametrize(
    "data, settings",
    [
        ("sort", {}),
        ("recall", {"attention": "naive", "positions": "alibi", "window": 9, "softcap": 20.0, "dropout": 0.1}),
        ("text", {"kv_heads": 1, "checkpoint": "block", "mlp": "swiglu", "lr": 0.003, "seed": 7, "context": 32}),
    ],
    ids=["sort", "recall", "text"],
)
def test_the_bits_are_those_of_the_program(tmp_path, data, settings):
    settings = TINY | settings
    (tmp_path / "text").write_bytes(TEXT)
    run_program("train", f"--{'text=text' if data == 'text' else 'task=' + data}", "--out", "expected", "--quiet",
                *options_of(settings))
    run = tilegrad.train(data, out="ours", **settings)
    assert results_of(run.metrics) == results_of(metrics_of(tmp_path / "expected"))
    for name in ("model.safetensors", "state.safetensors"):
        assert (run.folder / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert json.loads((tmp_path / "expected/config.json").read_text()) | {"out": "ours"} == run.config


@needs_program
@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "top_k": 3, "seed": 4, "tokens": 30}],
                         ids=["plain", "drawn"])
def test_a_sample_is_that_of_the_program(options):
    run = tilegrad.train(TEXT, out="run", context=16, **TINY)
    expected = run_program("sample", "run", "--prompt=the", *options_of(options)).decode()
    assert "the" + run.sample("the", **options) + "\n" == expected


@needs_program
def test_it_reads_what_the_program_wrote(tmp_path):
    run_program("train", "--task=sort", "--out=run", "--quiet", *options_of(TINY))
    run = tilegrad.load(tmp_path / "run")
    assert run.metrics == metrics_of(tmp_path / "run")
    assert run.model.parameter_count == sum(x.size for x in run.model.state_dict().values())
    printed = run_program("sample", "run", "--prompt=2 0 1").decode()
    assert printed.endswith("-> " + run.sample("2 0 1") + "\n")


def test_every_setting_of_the_program_is_one():
    names = {name for name, _, _ in _core.settings()} - {"task", "text"}
    hints = typing.get_type_hints(tilegrad.Settings)
    assert {name.removesuffix("_") for name in hints} == names
    assert set(inspect.signature(tilegrad.Transformer).parameters) - {"vocabulary"} < names


# --- Folders, going on ---------------------------------------------------------------------------------------


def test_a_folder_with_results_is_left_alone(tmp_path):
    assert [tilegrad.train("sort", **TINY).folder.name for _ in range(2)] == ["sort", "sort-2"]
    with pytest.raises(tilegrad.Error, match="^runs/sort: holds results already"):
        tilegrad.train("sort", out="runs/sort", **TINY)
    assert tilegrad.train("sort", out="runs/sort", overwrite=True, seed=2, **TINY).config["seed"] == 2


def test_a_run_that_goes_on_is_one_that_never_stopped():
    whole = tilegrad.train("sort", out="whole", **TINY)
    part = tilegrad.train("sort", out="part", stop_after=2, **TINY)
    assert part.steps["step"].tolist() == [1, 2]
    assert results_of(tilegrad.train(resume=part).metrics) == results_of(whole.metrics)


def test_bytes_are_a_text_that_is_kept(tmp_path):
    run = tilegrad.train(TEXT, context=16, **TINY)
    file = tmp_path / run.config["text"]
    assert run.folder.name == "text" and file.read_bytes() == TEXT
    assert tilegrad.train(resume=run, steps=8).steps["step"].tolist() == list(range(1, 9))
    assert run.decode(run.encode("the cat")) == "the cat"


def test_a_run_is_found_from_another_folder(tmp_path, monkeypatch):
    run = tilegrad.train("sort", out="run", **TINY)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run.model.vocabulary == 3 and len(run.metrics) == 8


def test_it_starts_with_the_weights_of_another_run():
    first = tilegrad.train("sort", out="first", **TINY)
    second = tilegrad.train("sort", out="second", from_=first, steps=1, lr=1e-30, min_lr=0.0)
    for name, x in second.model.state_dict().items():
        np.testing.assert_allclose(x, first.model.state_dict()[name], rtol=0, atol=1e-29, err_msg=name)


def test_the_best_weights_are_loaded_if_they_were_kept():
    run, other = (tilegrad.train("sort", out=f"run{seed}", seed=seed, **TINY) for seed in (1, 2))
    with pytest.raises(tilegrad.Error, match=r"best.safetensors: is missing; train\(\.\.\., best=True\) keeps it"):
        tilegrad.load(run, best=True).model
    assert (tilegrad.train("sort", out="best", best=True, **TINY).folder / "best.safetensors").exists()
    other.model.save(run.folder / "best.safetensors")
    tokens = [[0, 1, 2]]
    assert (tilegrad.load(run, best=True).model(tokens) == other.model(tokens)).all()
    assert not (tilegrad.load(run).model(tokens) == other.model(tokens)).all()


def test_the_threads_of_a_run_are_its_own():
    before = tilegrad.threads()
    tilegrad.train("sort", threads=before + 1, **TINY)
    assert tilegrad.threads() == before


# --- Metrics ----------------------------------------------------------------------------------------------------


def test_metrics_are_columns():
    run = tilegrad.train("sort", **TINY)
    steps = [line for line in run.metrics if line["kind"] == "step"]
    assert run.steps["step"].tolist() == [1, 2, 3, 4, 5, 6] and run.evaluations["step"].tolist() == [3, 6]
    for name in ("loss", "lr", "grad_norm", "ms", "peak_bytes"):
        assert run.steps[name].tolist() == [line[name] for line in steps]
    assert run.steps["at_peak_parameters"].tolist() == [line["at_peak"]["parameters"] for line in steps]
    assert run.evaluations.keys() == {"step", "train_loss", "val_loss", "accuracy", "exact"}
    assert len({x.shape for x in run.steps.values()}) == 1


def test_metrics_are_tables_of_pandas():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: this was not run")
    run = tilegrad.train("sort", **TINY)
    assert pandas.DataFrame(run.steps).shape[0] == 6
    assert pandas.DataFrame(run.evaluations)["val_loss"].iloc[-1] == run.metrics[-1]["val_loss"]


def test_a_damaged_line_is_left_out(tmp_path):
    tilegrad.train("sort", out="run", **TINY)
    file = tmp_path / "run/metrics.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = lines[1][:20]
    lines[2] = json.dumps(json.loads(lines[2]) | {"loss": None})
    file.write_text("\n".join(lines))
    run = tilegrad.load("run")
    with pytest.warns(UserWarning, match="metrics.jsonl: line 2 is damaged; left out"):
        assert run.steps["step"].tolist() == [1, 3, 4, 5, 6]
    assert np.isnan(run.steps["loss"]).tolist() == [False, True, False, False, False]
    (tmp_path / "run/metrics.jsonl").unlink()
    assert tilegrad.load("run").steps["loss"].shape == (0,)


# --- Errors and warnings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: tilegrad.train(), "train: needs data or a run to resume, and not both"),
        (lambda: tilegrad.train("sort", resume="runs/sort"), "train: needs data or a run to resume, and not both"),
        (lambda: tilegrad.train("sotr"),
         "train: 'sotr' is neither a task (copy, reverse, sort, add, recall, induction) nor a file"),
        (lambda: tilegrad.train("sort", layer=2), "train: 'layer' is not a setting; did you mean 'layers'?"),
        (lambda: tilegrad.train("sort", task="copy"), "train: 'task' is not a setting"),
        (lambda: tilegrad.train(3), "train: 3 is not a path"),
        (lambda: tilegrad.train("sort", heads=3, width=16), "attention: heads 3 does not divide width 16"),
        (lambda: tilegrad.train("sort", lr=float("nan")), "lr: is nan, must be positive"),
        (lambda: tilegrad.train("sort", steps="many"), "--steps"),
        (lambda: tilegrad.train("sort", attention="fast"), "--attention"),
        (lambda: tilegrad.train("sort", out="a\0b"), "cannot be an argument"),
        (lambda: tilegrad.train("sort", out="\udcff"), "is not valid UTF-8"),
        (lambda: tilegrad.train(resume="nowhere"), "nowhere/config.json: "),
        (lambda: tilegrad.train("sort", out="/proc/run", **TINY), "/proc/run"),
        (lambda: tilegrad.train(b"", out="run"), ".txt: "),
        (lambda: tilegrad.load("nowhere"), "nowhere/config.json: cannot be read: No such file or directory"),
        (lambda: tilegrad.load(3), "load: 3 is not a path"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(tilegrad.Error) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "--help" not in str(caught.value)


def test_a_failed_call_leaves_nothing_behind(tmp_path):
    with pytest.raises(tilegrad.Error):
        tilegrad.train("sort", heads=3, width=16)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_warnings_are_those_of_python(tmp_path):
    run = tilegrad.train("sort", out="run", stop_after=2, **TINY)
    with open(tmp_path / "run/metrics.jsonl", "a") as file:
        file.write("{broken\n")
    with pytest.warns(UserWarning, match="metrics.jsonl: 1 damaged line"):
        tilegrad.train(resume=run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tilegrad.train("sort", out="other", **TINY)

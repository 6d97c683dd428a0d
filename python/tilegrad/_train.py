"""Training: the command `tilegrad train`, run in this process."""

from __future__ import annotations

import json
import os
import pathlib
import threading
import warnings
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union

from tilegrad import _core
from tilegrad._core import Error
from tilegrad._paths import checked_path
from tilegrad._run import Run

if TYPE_CHECKING:
    from typing import Unpack

INTERRUPTED = 130

# The program has one default log and one handler of Ctrl-C.
_one_at_a_time = threading.Lock()

Path = Union[str, "os.PathLike[str]"]


class Settings(TypedDict, total=False):
    """All that decides a run, under the names of config.json; `tilegrad train --help` describes each."""

    # data: sizes of the tasks
    length: int
    symbols: int
    pairs: int
    filler: bool
    # model: as in Transformer
    layers: int
    width: int
    context: int
    hidden: int
    mlp: str
    norm: str
    positions: str
    dropout: float
    bias: bool
    tie: bool
    init: str
    dtype: str
    attention: str
    heads: int
    kv_heads: int
    window: Optional[int]
    softcap: Optional[float]
    sinks: bool
    mine: Path
    kv_init: str
    # memory
    checkpoint: Union[str, int]
    mine_checkpoint: Path
    # optimiser
    optimizer: str
    lr: float
    min_lr: float
    warmup: int
    schedule: str
    decay: Optional[int]
    weight_decay: float
    beta1: float
    beta2: float
    momentum: float
    nesterov: bool
    clip: float
    # run
    steps: int
    batch: int
    accumulate: int
    eval_every: int
    save_every: int
    seed: int
    threads: int
    detect_anomaly: bool
    from_: Path  # `from` is a word of Python
    best: bool
    stop_when: str
    patience: int
    out: Path


def train(
    data: Union[Path, bytes, None] = None,
    *,
    resume: Optional[Path] = None,
    overwrite: bool = False,
    stop_after: Optional[int] = None,
    **settings: Unpack[Settings],
) -> Run:
    """Trains a transformer as `tilegrad train` does, with the same settings, defaults, files and bits.

        run = tilegrad.train("sort", steps=100, kv_heads=1)
        run = tilegrad.train("input.txt", layers=2, positions="rope", checkpoint="block", out="runs/mine")
        run = tilegrad.train(resume="runs/mine", steps=4000)

    data        the name of a task ("copy", "reverse", "sort", "add", "recall", "induction"), a text file, or bytes:
                the text itself, which is kept in a file beside `out`, to resume with.
    resume      a run that goes on, in place of data; few settings may differ.
    overwrite   replaces the run in `out` as soon as this one has saved.
    stop_after  stops and saves after so many steps, as Ctrl-C would.
    settings    see Settings. What is not given, or None, has the default of the task or text. Among them:
        layers, width, context, heads, kv_heads, attention, window, ...   the model's, as in Transformer
        lr, min_lr    highest and last learning rate        warmup        steps until the highest
        steps, batch  training steps, sequences in each     eval_every    steps between evaluations
        threads       0: one for each processor             seed          decides weights, data and dropout
        from_         a run whose weights it starts with    out           folder; unless given, runs/<data> or, if that
                                                                          has results, the next that is free

    The interpreter is free while it trains. One run trains at a time; others wait. Ctrl-C saves the last whole step,
    then raises KeyboardInterrupt. SIGTERM and SIGHUP save as well, then do what they do elsewhere: they end the process
    or call its handler, and if that returns, this is a KeyboardInterrupt, too. Raises tilegrad.Error with one line,
    which names settings as the program's options.
    """
    arguments = ["--log-level=warn", "train", "--quiet", "--json"]
    if (data is None) == (resume is None):
        raise Error("train: needs data or a run to resume, and not both")
    arguments.append("--resume=" + checked_path(resume, "train") if data is None else _data(data, settings.get("out")))
    if overwrite:
        arguments.append("--overwrite")
    if stop_after is not None:
        arguments.append(f"--stop-after={stop_after}")
    arguments += [_option(name, value) for name, value in settings.items() if value is not None]
    code, output, signal = _run_program([_checked(argument) for argument in arguments])
    summary = json.loads(output.splitlines()[-1])
    if signal:
        _pass_on(signal, f"train: stopped after step {summary['step']} and saved in {summary['out']}"
                         + (", where train(resume=...) goes on" if code == INTERRUPTED else ", complete"))
    return Run(summary["out"])


def _data(data, out):
    if isinstance(data, bytes):
        return f"--text={_kept_text(data, pathlib.Path(out or 'runs/text').parent)}"
    if data in _core.tasks():
        return f"--task={data}"
    path = checked_path(data, "train")
    if isinstance(data, str) and not os.path.exists(path):
        raise Error(f"train: {data!r} is neither a task ({', '.join(_core.tasks())}) nor a file")
    return f"--text={path}"


def _kept_text(text, folder):
    import hashlib

    file = folder / f"text-{hashlib.sha256(text).hexdigest()[:12]}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_bytes(text)
    except OSError as error:
        raise Error(f"{file}: cannot be written: {error.strerror}") from None
    return file


def _option(name, value):
    name = name.removesuffix("_")  # from_
    known = [setting for setting, _, _ in _core.settings() if setting not in ("task", "text")]
    if name not in known:
        import difflib

        similar = difflib.get_close_matches(name, known, 1)
        raise Error(f"train: {name!r} is not a setting" + (f"; did you mean {similar[0]!r}?" if similar else ""))
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    if hasattr(value, "__fspath__"):
        value = checked_path(value, "train")
    return f"--{option}={value}"


def _checked(argument):
    if "\0" in argument:
        raise Error(f"train: {argument!r} cannot be an argument")
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise Error(f"train: {argument!r} is not valid UTF-8") from None
    return argument


def _pass_on(number, message):
    """Does, after training has saved, what the signal would have done without it."""
    import signal

    if number != signal.SIGINT:
        signal.raise_signal(number)
    raise KeyboardInterrupt(message)


def _run_program(arguments):
    """The exit code, the output and the signal that came; warnings become Python's, an error becomes an Error."""
    with _one_at_a_time:
        threads = _core.threads()
        try:
            code, output, errors, signal = _core.run_program(arguments)
        finally:
            if _core.threads() != threads:
                _core.set_threads(threads)
    for line in errors.decode(errors="replace").splitlines():
        if line.startswith("tilegrad: "):
            raise Error(line.removeprefix("tilegrad: ").removesuffix(" (tilegrad train --help lists what there is)"))
        warnings.warn(line.removeprefix("warning: "), stacklevel=3)
    return code, output.decode(), signal

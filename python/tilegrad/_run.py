"""A run, as `tilegrad train` and tilegrad.train() leave it in a folder."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import warnings
from typing import Any, Optional, Union

from tilegrad import _core
from tilegrad._core import Error
from tilegrad._transformer import Transformer

Columns = dict[str, Any]  # NumPy vectors of equal length, by name

STEP_COLUMNS = ("step", "loss", "lr", "grad_norm", "ms", "tokens_per_s", "live_bytes", "peak_bytes")
EVALUATION_COLUMNS = ("step", "train_loss", "val_loss", "accuracy", "exact")


def load(run: Union[str, os.PathLike[str]], *, best: bool = False) -> Run:
    """The run in a folder that `tilegrad train`, `compare` or tilegrad.train() wrote.

    best  its model has the weights of the lowest validation loss, which the setting `best` kept, not the last ones.

    Raises tilegrad.Error if there is none.
    """
    return Run(run, best)


class Run:
    """A run in its folder: settings, metrics, model."""

    def __init__(self, folder: Union[str, os.PathLike[str]], best: bool = False) -> None:
        try:
            self.folder = pathlib.Path(folder).absolute()  # metrics and model are read later
        except TypeError:
            raise Error(f"load: {folder!r} is not a path") from None
        self._best = best
        file = self.folder / "config.json"
        try:
            self._config_text = file.read_text()
            self.config: dict[str, Any] = json.loads(self._config_text)
        except OSError as error:
            raise Error(f"{file}: cannot be read: {error.strerror}") from None
        except ValueError:
            raise Error(f"{file}: is not JSON") from None

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @functools.cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl in order. Those of kind "step" have

            step, loss (of the batch, nats a token), lr, grad_norm (before clipping), ms, tokens_per_s, live_bytes,
            peak_bytes, at_peak (the peak by what it is used for)

        and those of kind "evaluation"

            step, train_loss (mean since the last one), val_loss (both in nats a token), accuracy (share of the tokens
            that were asked for), exact (share of the sequences without a fault).

        What is not a finite number is None. Bytes count all that tilegrad holds in the process.
        """
        lines = []
        file = self.folder / "metrics.jsonl"
        if not file.exists():
            return lines
        for number, text in enumerate(file.read_text(errors="replace").splitlines(), 1):
            try:
                line = json.loads(text)
                line["step"]
            except (ValueError, TypeError, KeyError):
                warnings.warn(f"{file}: line {number} is damaged; left out", stacklevel=2)
                continue
            line.setdefault("kind", "evaluation" if "val_loss" in line else "step")  # older programs wrote none
            lines.append(line)
        return lines

    @property
    def steps(self) -> Columns:
        """The metrics of the steps as columns: pandas.DataFrame(run.steps). What is not known is NaN."""
        return self._columns("step", STEP_COLUMNS)

    @property
    def evaluations(self) -> Columns:
        """The metrics of the evaluations as columns."""
        return self._columns("evaluation", EVALUATION_COLUMNS)

    def _columns(self, kind, names):
        import numpy as np

        lines = [_flat(line) for line in self.metrics if line["kind"] == kind]
        names = dict.fromkeys([*names, *(name for line in lines for name in line)])
        return {name: np.array([np.nan if line.get(name) is None else line[name] for line in lines]) for name in names}

    @functools.cached_property
    def model(self) -> Transformer:
        """The model with the weights that were saved."""
        model = Transformer._of(self.config | {"checkpoint": "none"}, self._codec.vocabulary)
        file = self.folder / ("best.safetensors" if self._best else "model.safetensors")
        if self._best and not file.exists():
            raise Error(f"{file}: is missing; train(..., best=True) keeps it")
        model.load(file)
        return model

    @functools.cached_property
    def _codec(self):
        return _core.Codec(self._config_text)

    def encode(self, text: Union[str, bytes]) -> Any:
        """Text, or symbols of the task with spaces between them, as tokens (T)."""
        import numpy as np

        return np.array(self._codec.encode(text.encode() if isinstance(text, str) else text), np.int32)

    def decode(self, tokens: Any) -> str:
        """Tokens (T) as text. Bytes that are no UTF-8 become U+FFFD."""
        return self._codec.decode([int(token) for token in tokens]).decode(errors="replace")

    def sample(
        self, prompt: Optional[Union[str, bytes]] = None, tokens: Optional[int] = None, *, temperature: float = 0.0,
        top_k: int = 0, seed: int = 1,
    ) -> str:
        """What follows the prompt, as `tilegrad sample` prints it after the prompt.

        tokens  how many; unless given, 200 of a text, the answer of a task.
        """
        start = self._codec.default_prompt() if prompt is None else self.encode(prompt)
        if tokens is None:
            tokens = 200 if self.config.get("text") else max(1, self.config["context"] + 1 - len(start))
        return self.decode(self.model.generate(start, tokens, temperature=temperature, top_k=top_k, seed=seed))


def _flat(line):
    """Without its kind, and with at_peak as columns at_peak_<use>."""
    peak = line.get("at_peak") or {}
    plain = {name: value for name, value in line.items() if name not in ("kind", "at_peak")}
    return plain | {f"at_peak_{use}": size for use, size in peak.items()}

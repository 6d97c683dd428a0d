"""Exact attention with gradients on the CPU, and transformers that train with it.

    import tilegrad
    out = tilegrad.attention(q, k, v, causal=True, window=(255, 0), softcap=30.0)
    run = tilegrad.train("sort", steps=100, attention="flash")
    logits = run.model(tokens)

tilegrad.torch has the same as PyTorch functions, with autograd; tilegrad.transformers registers it as an
attention implementation of transformers. Both are imported on their own.
"""

from typing import TYPE_CHECKING

from tilegrad._attention import attention, attention_backward
from tilegrad._core import Error, set_threads, threads

if TYPE_CHECKING:
    from tilegrad._run import Run, load
    from tilegrad._train import Settings, train
    from tilegrad._transformer import Transformer

Error.__module__ = __name__  # where people find it

__all__ = [
    "Error",
    "Run",
    "Settings",
    "Transformer",
    "attention",
    "attention_backward",
    "load",
    "set_threads",
    "threads",
    "train",
]

# Imported when they are asked for: what attention does not need would double the time of `import tilegrad`.
_MODULES = {"Run": "_run", "Settings": "_train", "Transformer": "_transformer", "load": "_run", "train": "_train"}


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__

"""A transformer: logits, gradients, generation, weights by name."""

from __future__ import annotations

import json
from typing import Any, Literal, Mapping, Optional, Sequence, Union

from tilegrad import _core
from tilegrad._core import Error
from tilegrad._paths import checked_path

Array = Any  # a NumPy array
Checkpoint = Union[str, int]  # "none", "block", a number of segments, "attention", "mlp" or "elementwise"

INT32_MAX = 2**31 - 1


class Transformer:
    """A decoder-only transformer, with weights that depend on the settings and the seed alone.

        x = E[tokens] (+ P[0 .. T - 1]),   per block  x += attention(norm(x)),  x += mlp(norm(x)),
        logits = norm(x) head^T

    Axes: B batch, T tokens of a sequence, V vocabulary, C width, Hq heads, Hkv kv_heads, D = C / Hq, F hidden.

    vocabulary  V: tokens are integers in [0, V).
    context     the longest T.
    layers      blocks.
    width       C, the size of a token's vector; a multiple of heads.
    heads       Hq, query heads.
    kv_heads    Hkv, divides heads: as many is MHA (unless given), 1 is MQA, between is GQA.
    hidden      F, the size inside the mlp; 0: 4 C, or 8 C / 3 rounded up to a multiple of 8 for swiglu.
    mlp         "gelu", "relu" or "swiglu".
    norm        "layernorm" or "rmsnorm".
    positions   "learned", "rope" or "alibi".
    attention   the kernel, "flash" or "naive": the same function up to rounding.
    window      keys that a query sees before its own position; None: all.
    softcap     X: scores become X tanh(score / X).
    sinks       one learnable logit for each query head, for attention to nothing.
    bias        linear layers have one.
    tie         the head shares the matrix of the token embedding.
    dropout     probability of dropping an activation, in gradients() and training alone.
    checkpoint  what gradients() recomputes instead of keeping it: "none", "block", a number of segments, "attention",
                "mlp" or "elementwise". The bits stay.
    init        "gpt2": N(0, .02) for all; "associative": N(0, 1) for embeddings, N(0, .07) for matrices.
    dtype       "f32" or "f64".
    seed        decides the weights, which are those with which a run of these settings begins, and the dropout.

    A model serves the calls of several threads one after the other. The interpreter is free meanwhile.
    Raises tilegrad.Error with one line.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        *,
        layers: int,
        width: int,
        heads: int,
        kv_heads: Optional[int] = None,
        hidden: int = 0,
        mlp: Literal["gelu", "relu", "swiglu"] = "gelu",
        norm: Literal["layernorm", "rmsnorm"] = "layernorm",
        positions: Literal["learned", "rope", "alibi"] = "learned",
        attention: Literal["flash", "naive"] = "flash",
        window: Optional[int] = None,
        softcap: Optional[float] = None,
        sinks: bool = False,
        bias: bool = False,
        tie: bool = True,
        dropout: float = 0.0,
        checkpoint: Checkpoint = "none",
        init: Literal["gpt2", "associative"] = "gpt2",
        dtype: Literal["f32", "f64"] = "f32",
        seed: int = 1,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "vocabulary")}
        settings["kv_heads"] = heads if kv_heads is None else kv_heads
        settings["checkpoint"] = str(checkpoint)
        self._become(settings, vocabulary)

    @classmethod
    def _of(cls, settings: Mapping[str, Any], vocabulary: int) -> Transformer:
        model = cls.__new__(cls)
        model._become(settings, vocabulary)
        return model

    def _become(self, settings, vocabulary):
        try:
            self._core = _core.Transformer(json.dumps(settings, default=_plain, allow_nan=False), vocabulary)
        except (TypeError, ValueError):
            raise Error(f"Transformer: vocabulary={vocabulary!r}, {settings}: one is of the wrong type") from None
        self._settings = dict(settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What the model was made of, but for the vocabulary: train(data, **model.settings) starts with its weights."""
        return dict(self._settings)

    @property
    def vocabulary(self) -> int:
        """V."""
        return self._core.vocabulary

    @property
    def parameter_count(self) -> int:
        """Number of elements of all parameters."""
        return self._core.parameter_count

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that generating keeps for each token."""
        return self._core.kv_bytes_per_token

    def __repr__(self) -> str:
        s = self._settings
        return (f"Transformer(vocabulary={self.vocabulary}, context={s['context']}, layers={s['layers']}, "
                f"width={s['width']}, heads={s['heads']}, kv_heads={s['kv_heads']}: {self.parameter_count} parameters)")

    def __call__(self, tokens: Array) -> Array:
        """tokens (B, T) integers -> logits (B, T, V), without dropout. T is at most the context."""
        return self._core.logits(_tokens(tokens, "tokens", "(B, T)"))

    def gradients(self, tokens: Array, targets: Array, step: int = 0) -> tuple[float, dict[str, Array]]:
        """(loss, gradient of each parameter by name, in its shape), for tokens and targets (B, T).

        The loss is the mean of -log softmax(logits)[target] in nats, over the targets that are not -1. Dropout masks
        are those of a run after `step` steps.
        """
        return self._core.gradients(_tokens(tokens, "tokens", "(B, T)"), _tokens(targets, "targets", "(B, T)"), step)

    def generate(
        self, prompt: Sequence[int], count: int, *, temperature: float = 0.0, top_k: int = 0, seed: int = 1
    ) -> Array:
        """The `count` tokens that follow the prompt, with a cache of keys and values.

        temperature  0 takes the likeliest token, 1 draws as the model says.
        top_k        draws among so many of the likeliest; 0: among all.
        seed         decides what is drawn, as in `tilegrad sample`.

        Of a prompt longer than the context the end is seen. A full context goes on from its last half.
        """
        import numpy as np

        prompt = _tokens(prompt, "prompt", "(T)")
        return np.array(self._core.generate(prompt, count, temperature, top_k, seed), np.int32)

    def state_dict(self) -> dict[str, Array]:
        """A copy of each parameter by its name, such as "blocks.0.attention.query.weight" (Hq D, C)."""
        return self._core.state_dict()

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Copies the arrays into the parameters. All names, shapes and dtypes must be those of state_dict()."""
        import numpy as np

        self._core.load_state_dict([(name, np.ascontiguousarray(array)) for name, array in arrays.items()])

    def save(self, path: Any) -> None:
        """Writes the parameters as a safetensors file, like the model.safetensors of a run; replaces it atomically."""
        self._core.save(checked_path(path, "Transformer"))

    def load(self, path: Any) -> None:
        """Reads what save() wrote for a model of the same shapes."""
        self._core.load(checked_path(path, "Transformer"))


def _plain(number):
    """A NumPy scalar as Python's number, for JSON."""
    if hasattr(number, "item"):
        return number.item()
    raise TypeError


def _tokens(values, name, shape):
    import numpy as np

    try:
        array = np.asarray(values)
    except ValueError:
        raise Error(f"Transformer: {name} has rows of different lengths") from None
    if array.size and array.dtype.kind not in "iu":
        raise Error(f"Transformer: {name} is {array.dtype}, not integers")
    if array.ndim != shape.count(",") + 1:
        raise Error(f"Transformer: {name} has the shape {array.shape}, not {shape}")
    if array.size and not -1 <= int(array.min()) <= int(array.max()) <= INT32_MAX:
        raise Error(f"Transformer: {name} has values that are no tokens: {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, np.int32)

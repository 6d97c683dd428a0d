"""Attention on arrays. The formulas are those of the docstrings; the work is done in tilegrad._core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional, TypedDict

from tilegrad import _core
from tilegrad._arrays import as_numpy, like
from tilegrad._core import Error

if TYPE_CHECKING:
    from typing import Unpack

Array = Any  # a NumPy array, or anything with DLPack on the CPU
Window = tuple[Optional[int], Optional[int]]
Align = Literal["bottom_right", "top_left"]
Kernel = Literal["flash", "naive"]

INT32_MAX = 2**31 - 1


class Options(TypedDict, total=False):
    """What attention() and attention_backward() take beside the arrays; attention() says what each means."""

    causal: bool
    window: Optional[Window]
    align: Align
    scale: Optional[float]
    softcap: Optional[float]
    bias: Optional[Array]
    mask: Optional[Array]
    sinks: Optional[Array]
    alibi_slopes: Optional[Array]
    dropout: float
    seed: int
    k_lengths: Optional[Array]
    cu_seqlens_q: Optional[Array]
    cu_seqlens_k: Optional[Array]


def attention(
    q: Array, k: Array, v: Array, *, kernel: Kernel = "flash", return_lse: bool = False, **options: Unpack[Options]
) -> Any:
    """Scaled dot-product attention: out, or (out, lse) with return_lse.

        q (B, Tq, Hq, D)   k (B, Tk, Hkv, D)   v (B, Tk, Hkv, Dv)   out (B, Tq, Hq, Dv)   lse (B, Hq, Tq)

    Hkv divides Hq: query head h reads key/value head h // (Hq // Hkv), and nothing is repeated in memory.

        s_ij  = scale <q_i, k_j>
        s_ij  = softcap tanh(s_ij / softcap)                  if there is a softcap
        s_ij += bias_ij - slope_h |i + offset - j|            if there are a bias, ALiBi slopes
        s_ij  = -inf                                          where masked: causal, window, lengths, mask
        lse_i = log(exp(sink_h) + sum_j exp(s_ij))            exp(sink_h) only if there are sinks
        p_ij  = exp(s_ij - lse_i),   out_i = sum_j dropout(p_ij) v_j

    Query i stands at key i + offset: offset is Tk - Tq with align="bottom_right", so that the last query sees the last
    key, and 0 with "top_left". A query that may see no key has out 0 and lse -inf.

    q, k, v      float32, float64, or bfloat16 or float16 (which only store: everything inside is float32, and a result
                 beyond the largest number is inf), all alike. NumPy, or anything with DLPack on the CPU, of any
                 strides; the last axis is contiguous. They are not copied.
    causal       hides the keys after the query's own position. (False)
    window       (left, right): query i sees the keys from i + offset - left to i + offset + right; None has no bound.
    align        "bottom_right" or "top_left". ("bottom_right")
    scale        1/sqrt(D) unless given.
    bias         (B or 1, Hq or 1, Tq or 1, Tk), float32, or float64 if q is; added to the scores.
    mask         (B or 1, Hq or 1, Tq or 1, Tk), bool: False hides the key from the query.
    sinks        (Hq), one more logit in each denominator.
    alibi_slopes (Hq).
    dropout      probability of dropping p_ij, in [0, 1). (0)
    seed         decides which are dropped: the same in forward and backward. (1)
    k_lengths    (B) integers: keys from there on are padding.
    cu_seqlens_q, cu_seqlens_k
                 (N + 1) integers: with B = 1, sequence n has the queries from cu_seqlens_q[n] to cu_seqlens_q[n + 1]
                 and the keys likewise, and sees nothing of the others.
    kernel       "flash" works tile by tile, its memory grows with Tq + Tk. "naive" is the textbook formula and forms
                 all scores.

    The results are new arrays of q's library; lse is float32, or float64 if q is. They have the same bits for every
    number of threads. The interpreter is free while it computes. Raises tilegrad.Error with one line.
    """
    import numpy as np

    call = prepare(q, k, v, **options)
    out, lse = np.empty(call.out_shape, call.dtype), np.empty(call.lse_shape, call.accumulator)
    _core.attention(kernel, call.options, out, lse, call.operands)
    return (like(q, out), like(q, lse)) if return_lse else like(q, out)


def attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    *,
    dlse: Optional[Array] = None,
    kernel: Kernel = "flash",
    **options: Unpack[Options],
) -> tuple[Array, Array, Array, dict[str, Array]]:
    """The gradients of <out, dout> + <lse, dlse>: (dq, dk, dv, extra).

    `out` and `lse` are what attention() returned for the same arguments. dq, dk and dv have the shapes of q, k and v.
    `extra` has "bias" and "sinks" for those of the two that are given, in their own shapes: the gradient of a bias is
    summed over the axes along which it was broadcast. (If these are the queries, it is formed for all pairs first.)

        dv_j   = sum_i dropout(p_ij) dout_i
        dp_ij  = dropout(<dout_i, v_j>),   delta_i = sum_j p_ij dp_ij - dlse_i
        ds_ij  = p_ij (dp_ij - delta_i),   dbias = ds,   dsink_h = -sum_i exp(sink_h - lse_i) delta_i
        dq_i   = scale sum_j ds_ij f'_ij k_j,   dk_j = scale sum_i ds_ij f'_ij q_i,   f' the derivative of softcap

    `kernel="naive"` forms all probabilities again. All else is as in attention().
    """
    import numpy as np

    call = prepare(q, k, v, **options)
    gradients = tuple(np.empty(x.shape, x.dtype) if x is not None else None for x in call.operands[:5])
    results = {name: as_numpy(x, name) for name, x in (("dout", dout), ("dlse", dlse), ("out", out), ("lse", lse))}
    results["lse"], results["dlse"] = contiguous(results["lse"]), contiguous(results["dlse"])
    _core.attention_backward(kernel, call.options, gradients, results["dout"], results["dlse"], results["out"],
                             results["lse"], call.operands)
    dq, dk, dv, dbias, dsinks = gradients
    extra = {}
    if dbias is not None:
        broadcast = call.bias_rows == 1 != dbias.shape[2]
        extra["bias"] = like(q, dbias.sum(axis=2, keepdims=True) if broadcast else dbias)
    if dsinks is not None:
        extra["sinks"] = like(q, dsinks)
    return like(q, dq), like(q, dk), like(q, dv), extra


class Call(NamedTuple):
    """What the core needs for one call."""

    options: _core.AttentionOptions
    operands: tuple  # q, k, v, bias, sinks, mask, alibi, k_lengths, cu_q, cu_k as NumPy arrays or None
    bias_rows: int  # the size of the bias's third axis as it was given

    @property
    def dtype(self):
        return self.operands[0].dtype

    @property
    def accumulator(self):
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def out_shape(self):
        return self.operands[0].shape[:3] + self.operands[2].shape[3:]

    @property
    def lse_shape(self):
        batch, queries, heads = (self.operands[0].shape[i : i + 1] for i in range(3))
        return batch + heads + queries


def prepare(q, k, v, *, causal=False, window=None, align="bottom_right", scale=None, softcap=None, bias=None, mask=None,
            sinks=None, alibi_slopes=None, dropout=0.0, seed=1, k_lengths=None, cu_seqlens_q=None, cu_seqlens_k=None):
    left, right = _window(window)
    try:
        options = _core.AttentionOptions(causal, align, left, right, scale, softcap, dropout, seed)
    except TypeError:
        raise Error(f"attention: causal={causal!r}, align={align!r}, window={window!r}, scale={scale!r}, "
                    f"softcap={softcap!r}, dropout={dropout!r}, seed={seed!r}: one is of the wrong type") from None
    q, k, v, bias = as_numpy(q, "q"), as_numpy(k, "k"), as_numpy(v, "v"), as_numpy(bias, "bias")
    for x, name in ((q, "q"), (k, "k"), (v, "v")):
        if x is None:
            raise Error(f"attention: {name} is None, not an array")
    mask = as_numpy(mask, "mask", ("bool", "uint8"))
    operands = (q, k, v, _every_query(bias, q), contiguous(as_numpy(sinks, "sinks")), _every_query(mask, q),
                contiguous(as_numpy(alibi_slopes, "alibi")), _integers(k_lengths, "k_lengths"),
                _integers(cu_seqlens_q, "cu_q"), _integers(cu_seqlens_k, "cu_k"))
    return Call(options, operands, bias.shape[2] if bias is not None and bias.ndim == 4 else 0)


def contiguous(array):
    """A vector or lse, which the core reads as one piece."""
    import numpy as np

    return array if array is None else np.ascontiguousarray(array)


def _window(window):
    if window is None:
        return None, None
    try:
        left, right = window
    except (TypeError, ValueError):
        raise Error(f"attention: the window is {window!r}, not (left, right)") from None
    return left, right


def _every_query(scores, q):
    """A bias or mask that is the same for every query, with that axis repeated by a stride of 0."""
    import numpy as np

    if scores is None or scores.ndim != 4 or q.ndim != 4 or scores.shape[2] != 1:
        return scores
    return np.broadcast_to(scores, scores.shape[:2] + q.shape[1:2] + scores.shape[3:])


def _integers(values, name):
    """A vector of integers of any type, also a list, as int32."""
    import numpy as np

    if values is None:
        return None
    if isinstance(values, (list, tuple)):
        values = np.asarray(values, dtype=None if values else np.int32)
    array = as_numpy(values, name, ("int32", "int64"))
    if array.size and max(abs(int(array.max())), abs(int(array.min()))) > INT32_MAX:
        raise Error(f"attention: {name} has values beyond {INT32_MAX}")
    return np.ascontiguousarray(array, dtype=np.int32)

"""Attention as its formulas say it, in plain NumPy and float64: what the tests compare with."""

import itertools

import numpy as np


def visible_pairs(tq, tk, causal=False, window=None, align="bottom_right"):
    """(Tq, Tk) bool, and the distances |i + offset - j|."""
    position = np.arange(tq)[:, None] + (tk - tq if align == "bottom_right" else 0)
    key = np.arange(tk)[None, :]
    left, right = window or (None, None)
    seen = np.ones((tq, tk), bool)
    if causal:
        seen &= key <= position
    if left is not None:
        seen &= key >= position - left
    if right is not None:
        seen &= key <= position + right
    return seen, np.abs(position - key)


def attention(q, k, v, *, causal=False, window=None, align="bottom_right", scale=None, softcap=None, bias=None,
              mask=None, sinks=None, alibi_slopes=None, k_lengths=None, cu_seqlens_q=None, cu_seqlens_k=None):
    """(out, lse) in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    (batch, tq, heads, dim), tk = q.shape, k.shape[1]
    k, v = (np.repeat(x, heads // x.shape[2], axis=2) for x in (k, v))
    scores = np.einsum("bihd,bjhd->bhij", q, k) * (dim**-0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    seen = np.zeros(scores.shape, bool)
    distance = np.zeros(scores.shape)
    for rows, queries, keys in _sequences(batch, tq, tk, k_lengths, cu_seqlens_q, cu_seqlens_k):
        pairs, apart = visible_pairs(queries.stop - queries.start, keys.stop - keys.start, causal, window, align)
        seen[rows, :, queries, keys] = pairs
        distance[rows, :, queries, keys] = apart
    if alibi_slopes is not None:
        scores = scores - np.asarray(alibi_slopes)[:, None, None] * distance
    if mask is not None:
        seen &= np.asarray(mask, bool)
    scores = np.where(seen, scores, -np.inf)
    sink = np.full((1, heads, 1), -np.inf) if sinks is None else np.asarray(sinks, np.float64)[None, :, None]
    most = np.maximum(scores.max(-1, initial=-np.inf), sink)
    most = np.where(np.isfinite(most), most, 0)
    with np.errstate(divide="ignore"):
        lse = most + np.log(np.exp(scores - most[..., None]).sum(-1) + np.exp(sink - most))
    p = np.exp(scores - np.where(np.isfinite(lse), lse, 0)[..., None])
    return np.einsum("bhij,bjhd->bihd", p, v), lse


def _sequences(batch, tq, tk, k_lengths, cu_q, cu_k):
    """(batch rows, queries, keys) of each sequence, as slices."""
    if cu_q is not None:
        for (a, b), (c, d) in zip(itertools.pairwise(cu_q), itertools.pairwise(cu_k)):
            yield slice(0, 1), slice(a, b), slice(c, d)
    elif k_lengths is not None:
        for row, length in enumerate(k_lengths):
            yield slice(row, row + 1), slice(0, tq), slice(0, length)
    else:
        yield slice(0, batch), slice(0, tq), slice(0, tk)

"""tilegrad's attention for PyTorch, on the CPU, with gradients.

    from tilegrad.torch import scaled_dot_product_attention, flash_attn_func, flash_attn_varlen_func

They are registered with torch.library as `tilegrad::attention`, so they work under torch.compile. float32, float64,
and bfloat16 and float16 as storage (everything inside is float32); second derivatives are an error.
"""

from typing import Optional

import torch
from torch import Tensor

from tilegrad._core import Error
from tilegrad._torch_op import attend

__all__ = ["Error", "flash_attn_func", "flash_attn_varlen_func", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Optional[Tensor] = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Optional[float] = None,
    enable_gqa: bool = False,
    *,
    window: Optional[tuple[Optional[int], Optional[int]]] = None,
    softcap: Optional[float] = None,
    sinks: Optional[Tensor] = None,
    alibi_slopes: Optional[Tensor] = None,
) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention, and what that one lacks.

    query (..., Hq, Tq, D), key (..., Hkv, Tk, D), value (..., Hkv, Tk, Dv) -> (..., Hq, Tq, Dv). The leading axes,
    also none, are equal. Hkv divides Hq with enable_gqa and is equal to it without.

    attn_mask    broadcasts to (..., Hq, Tq, Tk). bool: True may be seen. Else it is added to the scores, and may
                 require a gradient. It may be given together with is_causal.
    is_causal    query i sees the keys j <= i, whatever Tq and Tk are (top-left, as in PyTorch).
    window       (left, right): query i sees the keys from i - left to i + right; None or -1 has no bound.
    softcap      bounds the scores: softcap tanh(s / softcap), before the mask.
    sinks        (Hq), one more logit in each denominator.
    alibi_slopes (Hq): -slope_h |i - j| is added to the scores.

    A query that sees no key has the output 0.
    """
    rank = query.dim()
    if rank < 3 or key.dim() != rank or value.dim() != rank:
        raise Error(f"attention: query, key and value are (..., H, T, D), not {tuple(query.shape)}, "
                    f"{tuple(key.shape)} and {tuple(value.shape)}")
    if not enable_gqa and query.size(-3) != key.size(-3):
        raise Error(f"attention: {query.shape[-3]} query and {key.shape[-3]} key/value heads need enable_gqa=True")
    lead = query.shape[:-3] if rank != 4 else None
    if lead is not None:
        query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
    bias = mask = left = right = None
    if attn_mask is not None:
        bias, mask = _bias_and_mask(attn_mask, query.shape[:1] if lead is None else lead, key.shape[2])
    if window is not None:
        left, right = _window(window)
    out, _ = attend(query, key, value, heads_first=True, bias=bias, mask=mask, sinks=sinks, alibi=alibi_slopes,
                    causal=is_causal, align="top_left", left=left, right=right, scale=scale, softcap=softcap,
                    dropout=dropout_p)
    return out if lead is None else out.reshape(*lead, *out.shape[1:])


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: Optional[float] = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Optional[Tensor] = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    *,
    sinks: Optional[Tensor] = None,
    attn_bias: Optional[Tensor] = None,
):
    """flash_attn_func of flash-attn 2, on the CPU: out (B, Tq, Hq, Dv), or (out, lse (B, Hq, Tq), None).

    q (B, Tq, Hq, D), k (B, Tk, Hkv, D), v (B, Tk, Hkv, Dv); Hkv divides Hq. The diagonal of causal, window and ALiBi
    ends in the bottom right corner: the last query sees the last key.

    window_size   (left, right) keys beside the query's own; -1 has no bound.
    alibi_slopes  (Hq) or (B, Hq).
    deterministic is always so.
    sinks         (Hq), one more logit in each denominator.
    attn_bias     added to the scores, (B or 1, Hq or 1, Tq or 1, Tk); it may require a gradient.
    """
    options = _flash_options(causal, window_size, softmax_scale, softcap, dropout_p)

    def call(q, k, v, bias, slopes):
        return attend(q, k, v, bias=bias, sinks=sinks, alibi=slopes, **options)

    if alibi_slopes is not None and alibi_slopes.dim() == 2:
        rows = [call(q[b : b + 1], k[b : b + 1], v[b : b + 1],
                     attn_bias if attn_bias is None or attn_bias.shape[0] == 1 else attn_bias[b : b + 1],
                     alibi_slopes[b]) for b in range(q.shape[0])]
        out, lse = (torch.cat(parts) for parts in zip(*rows))
    else:
        out, lse = call(q, k, v, attn_bias, alibi_slopes)
    return (out, lse, None) if return_attn_probs else out


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: Optional[int] = None,
    max_seqlen_k: Optional[int] = None,
    dropout_p: float = 0.0,
    softmax_scale: Optional[float] = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Optional[Tensor] = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Optional[Tensor] = None,
    *,
    sinks: Optional[Tensor] = None,
):
    """flash_attn_varlen_func of flash-attn 2, on the CPU: out (Tq, Hq, Dv), or (out, lse (Hq, Tq), None).

    q (Tq, Hq, D), k (Tk, Hkv, D), v (Tk, Hkv, Dv) hold N sequences one after the other: sequence n has the queries
    from cu_seqlens_q[n] to cu_seqlens_q[n + 1] and the keys likewise; both int32 (N + 1). The lengths of the longest
    are not needed. alibi_slopes are (Hq). A block_table is an error. All else is as in flash_attn_func.
    """
    if block_table is not None:
        raise Error("attention: a block_table is not supported; gather the keys and values first")
    out, lse = attend(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), sinks=sinks, alibi=alibi_slopes,
                      cu_q=cu_seqlens_q, cu_k=cu_seqlens_k,
                      **_flash_options(causal, window_size, softmax_scale, softcap, dropout_p))
    out, lse = out.squeeze(0), lse.squeeze(0)
    return (out, lse, None) if return_attn_probs else out


def _window(window):
    """Bounds as the op has them, where none is None and not -1."""
    left, right = window
    return (None if left == -1 else left), (None if right == -1 else right)


def _flash_options(causal, window_size, softmax_scale, softcap, dropout_p):
    """flash-attn's options as the op has them. A causal mask hides what a window would show to the right."""
    left, right = _window(window_size)
    return {"causal": causal, "left": left, "right": None if causal else right, "scale": softmax_scale,
            "softcap": softcap or None, "dropout": dropout_p}


def _bias_and_mask(mask, lead, keys):
    """An attn_mask as the one that it is, and None as the other."""
    scores = _scores(mask, lead, keys)
    return (None, scores) if scores.dtype == torch.bool else (scores, None)


def _scores(mask, lead, keys):
    """An attn_mask as (B or 1, Hq or 1, Tq or 1, Tk), whose leading axes are those of the query, made one."""
    mask = mask.reshape((1,) * (len(lead) + 3 - mask.dim()) + mask.shape)
    if mask.shape[-1] != keys:
        mask = mask.expand(*mask.shape[:-1], keys)
    if len(lead) == 1:
        return mask
    if any(size != 1 for size in mask.shape[: len(lead)]):
        mask = mask.expand(*lead, *mask.shape[-3:])
    return mask.reshape(-1, *mask.shape[-3:])

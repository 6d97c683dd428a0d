"""Exact attention with gradients on the CPU.

    import tilegrad
    out = tilegrad.attention(q, k, v, causal=True, window=(255, 0), softcap=30.0)

tilegrad.torch has the same as PyTorch functions, with autograd; tilegrad.transformers registers it as an
attention implementation of transformers. Both are imported on their own.
"""

from tilegrad._attention import attention, attention_backward
from tilegrad._core import Error, set_threads, threads

Error.__module__ = __name__  # where people find it

__all__ = ["Error", "attention", "attention_backward", "set_threads", "threads"]

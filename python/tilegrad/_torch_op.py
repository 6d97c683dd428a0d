"""tilegrad::attention and its backward as PyTorch ops: their schema, what they return, their gradients.

Compilers, tracers and tensor subclasses get the registered ops. A plain call takes the same functions by a shorter way,
because what PyTorch does around a registered op in Python takes longer than attention on a few hundred tokens.
"""

from typing import Optional

import torch
from torch import Tensor

from tilegrad import _core
from tilegrad._core import Error
from tilegrad._torch_threads import use_torch_threads

_OPERANDS = ("Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? sinks, Tensor? mask, Tensor? alibi, "
             "Tensor? k_lengths, Tensor? cu_q, Tensor? cu_k, Tensor? seed")
_OPTIONS = "bool causal, str align, int? left, int? right, float? scale, float? softcap, float dropout"
_TENSORS = 11  # of _OPERANDS, the seed included
_PLAIN = (Tensor, torch.nn.Parameter)
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_library = torch.library.Library("tilegrad", "DEF")
_library.define(f"attention({_OPERANDS}, {_OPTIONS}) -> (Tensor, Tensor)")
_library.define(f"attention_backward(Tensor dout, Tensor? dlse, Tensor out, Tensor lse, {_OPERANDS}, {_OPTIONS}, "
                "bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")


def attend(q, k, v, *, bias=None, mask=None, sinks=None, alibi=None, k_lengths=None, cu_q=None, cu_k=None,
           causal=False, align="bottom_right", left=None, right=None, scale=None, softcap=None, dropout=0.0):
    """(out, lse) of tensors (B, T, H, D). A bias or mask may have 1 in place of B, Hq and Tq. What is dropped is drawn
    from PyTorch's generator."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dtype not in _DTYPES:
            raise Error(f"attention: {name} is {_name(x.dtype)}, not float32, float64, bfloat16 or float16")
        if not x.is_cpu:
            raise Error(f"attention: {name} is on {x.device}, not on the CPU")
    accumulator = _accumulator(q)
    bias, sinks, alibi = (None if x is None else x.to(accumulator) for x in (bias, sinks, alibi))
    seed = torch.randint(2**62, ()) if dropout > 0 else None
    tensors = (q, k, v, bias, sinks, mask, alibi, k_lengths, cu_q, cu_k, seed)
    arguments = (*tensors, causal, align, left, right, scale, softcap, dropout)
    if torch.compiler.is_compiling() or any(x is not None and type(x) not in _PLAIN for x in tensors):
        return torch.ops.tilegrad.attention(*arguments)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors[:5]):
        return _Attention.apply(*arguments)
    return _attention(*arguments)


# --- The work -----------------------------------------------------------------------------------------------


def _attention(*arguments):
    operands, options = _split(arguments)
    out, lse = _attention_like(*arguments)
    _core.attention("flash", options, _numpy(out), _numpy(lse), operands)
    return out, lse


def _attention_backward(dout, dlse, out, lse, *arguments):
    *arguments, wanted = arguments
    operands, options = _split(arguments)
    gradients = _attention_backward_like(dout, dlse, out, lse, *arguments, wanted)
    # A bias that is the same for every query has its gradient formed for all of them, and then summed.
    bias, rows = arguments[3], arguments[0].shape[1]
    sums_rows = wanted[3] and bias.shape[2] == 1 != rows
    dbias = gradients[3].expand(-1, -1, rows, -1).contiguous() if sums_rows else gradients[3]
    to = tuple(_numpy(x) if need else None for x, need in zip((*gradients[:3], dbias, gradients[4]), wanted))
    dlse = None if dlse is None else _numpy(dlse.contiguous())
    _core.attention_backward("flash", options, to, _numpy(_last_contiguous(dout)), dlse, _numpy(out), _numpy(lse),
                             operands)
    if sums_rows:
        torch.sum(dbias, 2, keepdim=True, out=gradients[3])
    return gradients


def _attention_like(*arguments):
    """Empty results."""
    q, v = arguments[0], arguments[2]
    batch, queries, heads, _ = q.shape
    return q.new_empty((batch, queries, heads, v.shape[3])), q.new_empty((batch, heads, queries), dtype=_accumulator(q))


def _attention_backward_like(dout, dlse, out, lse, *arguments):
    """Empty gradients, laid out as their tensors if these are dense; without elements where none is wanted."""
    *operands, wanted = arguments
    q = operands[0]
    return tuple(torch.empty_like(x) if need else q.new_empty(0) for x, need in zip(operands[:5], wanted))


def _split(arguments):
    """The core's operands and options."""
    tensors, options = arguments[:_TENSORS], arguments[_TENSORS:]
    causal, align, left, right, scale, softcap, dropout = options
    q, k, v, bias, sinks, mask, alibi, k_lengths, cu_q, cu_k, seed = tensors
    rows = q.shape[1] if q.dim() == 4 else 0
    operands = tuple(None if x is None else _numpy(x) for x in (
        _last_contiguous(q), _last_contiguous(k), _last_contiguous(v), _every_query(bias, rows), _flat(sinks),
        _every_query(mask, rows), _flat(alibi), _flat(k_lengths), _flat(cu_q), _flat(cu_k)))
    number = 0 if seed is None else seed.item()
    return operands, _core.AttentionOptions(causal, align, left, right, scale, softcap, dropout, number)


def _numpy(tensor):
    """The same memory; bf16 as uint16, which is how the core has it."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _flat(tensor):
    return None if tensor is None else tensor.contiguous()


def _last_contiguous(tensor):
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1 else tensor.contiguous()


def _every_query(scores, rows):
    if scores is None or scores.dim() != 4:
        return scores
    scores = _last_contiguous(scores)
    return scores.expand(-1, -1, rows, -1) if scores.shape[2] == 1 else scores


def _accumulator(q):
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _name(dtype):
    return str(dtype).removeprefix("torch.")


# --- Gradients ----------------------------------------------------------------------------------------------


def _save(ctx, inputs, output):
    ctx.save_for_backward(*output, *inputs[:_TENSORS])
    ctx.options = inputs[_TENSORS:]
    ctx.set_materialize_grads(False)


def _gradients(ctx, dout, dlse, backward=torch.ops.tilegrad.attention_backward):
    out, lse, *operands = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:5])
    if dout is None:
        dout = torch.zeros_like(out)
    gradients = backward(dout, dlse, out, lse, *operands, *ctx.options, wanted)
    missing = (None,) * (_TENSORS - 5 + len(ctx.options))
    return tuple(x if need else None for x, need in zip(gradients, wanted)) + missing


class _Attention(torch.autograd.Function):
    """The shorter way with gradients."""

    @staticmethod
    def forward(ctx, *arguments):
        output = _attention(*arguments)
        _save(ctx, arguments, output)
        return output

    @staticmethod
    def backward(ctx, dout, dlse):
        # With create_graph the registered op says that there are no second derivatives.
        if torch.is_grad_enabled():
            return _gradients(ctx, dout, dlse)
        return _gradients(ctx, dout, dlse, _attention_backward)


def _no_second_derivatives(ctx, *_):
    raise Error("attention: second derivatives are not supported")


_library.impl("attention", _attention, "CPU")
_library.impl("attention_backward", _attention_backward, "CPU")
torch.library.register_fake("tilegrad::attention", _attention_like, lib=_library)
torch.library.register_fake("tilegrad::attention_backward", _attention_backward_like, lib=_library)
torch.library.register_autograd("tilegrad::attention", _gradients, setup_context=_save, lib=_library)
torch.library.register_autograd("tilegrad::attention_backward", _no_second_derivatives, lib=_library)
use_torch_threads()

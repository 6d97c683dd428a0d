"""tilegrad::attention and its backward as PyTorch ops: their schema, what they return, their gradients.

Compilers, tracers and tensor subclasses get the registered ops. A plain call takes the same functions by a shorter way,
because what PyTorch does around a registered op in Python takes longer than attention on a few hundred tokens.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tilegrad import _core
from tilegrad._core import Error
from tilegrad._torch_threads import use_torch_threads

_OPERANDS = ("Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? sinks, Tensor? mask, Tensor? alibi, "
             "Tensor? k_lengths, Tensor? cu_q, Tensor? cu_k, Tensor? seed")
_OPTIONS = "bool causal, str align, int? left, int? right, float? scale, float? softcap, float dropout"
_TENSORS = 11  # of _OPERANDS, the seed included
_TRACKED = 5  # of these may have a gradient
_PLAIN = frozenset((Tensor, torch.nn.Parameter, type(None)))
# What tells of transforms has no public name. In a version of PyTorch that lacks one, no call is plain.
_KNOWS_TRANSFORMS = (hasattr(torch._C, "_are_functorch_transforms_active")
                     and hasattr(torch._C, "_len_torch_dispatch_stack") and hasattr(forward_ad, "_current_level"))
_ACCUMULATORS = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32,
                 torch.float16: torch.float32}

_library = torch.library.Library("tilegrad", "DEF")
_library.define(f"attention({_OPERANDS}, {_OPTIONS}) -> (Tensor, Tensor)")
_library.define(f"attention_backward(Tensor dout, Tensor? dlse, Tensor out, Tensor lse, {_OPERANDS}, {_OPTIONS}, "
                "bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")

# From 2.10 on, PyTorch lends its tensors to the core as they are. Before, each becomes a NumPy array first.
_lent = _core.read_tensors_of(Tensor, getattr(Tensor, "__dlpack_c_exchange_api__", None))


def attend(q, k, v, *, heads_first=False, bias=None, mask=None, sinks=None, alibi=None, k_lengths=None, cu_q=None,
           cu_k=None, causal=False, align="bottom_right", left=None, right=None, scale=None, softcap=None, dropout=0.0):
    """(out, lse) of tensors (B, T, H, D), or (B, H, T, D) if heads come first; so is out. A bias or mask may have 1 in
    place of B, Hq and Tq. What is dropped is drawn from PyTorch's generator."""
    if not (q.dtype in _ACCUMULATORS and k.dtype in _ACCUMULATORS and v.dtype in _ACCUMULATORS
            and q.is_cpu and k.is_cpu and v.is_cpu and q.dim() == k.dim() == v.dim() == 4):
        _refuse(q=q, k=k, v=v)
    if bias is not None or sinks is not None or alibi is not None:
        accumulator = _ACCUMULATORS[q.dtype]
        bias, sinks, alibi = (None if x is None else x.to(accumulator) for x in (bias, sinks, alibi))
    seed = torch.randint(2**62, ()) if dropout > 0 else None
    tensors = (q, k, v, bias, sinks, mask, alibi, k_lengths, cu_q, cu_k, seed)
    options = (causal, align, left, right, scale, softcap, dropout)
    if torch.compiler.is_compiling() or not _is_plain(tensors):
        return _registered(tensors, options, heads_first)
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad
                                    or (bias is not None and bias.requires_grad)
                                    or (sinks is not None and sinks.requires_grad)):
        return _Attention.apply(*tensors[:_TRACKED], tensors[_TRACKED:], options, heads_first)
    return _forward(tensors, _core_options(tensors, options), heads_first)


def _refuse(**tensors):
    for name, x in tensors.items():
        if x.dtype not in _ACCUMULATORS:
            raise Error(f"attention: {name} is {str(x.dtype).removeprefix('torch.')}, "
                        "not float32, float64, bfloat16 or float16")
        if not x.is_cpu:
            raise Error(f"attention: {name} is on {x.device}, not on the CPU")
    shapes = "{}, {} and {}".format(*(tuple(x.shape) for x in tensors.values()))
    raise Error(f"attention: q, k and v are (B, T, H, D), not {shapes}")


def _is_plain(tensors):
    """Whether no part of PyTorch (a subclass, a transform of torch.func, a tracer, a dual number) is to see the call."""
    return (_KNOWS_TRANSFORMS and _PLAIN.issuperset(map(type, tensors))
            and not torch._C._are_functorch_transforms_active() and not torch._C._len_torch_dispatch_stack()
            and forward_ad._current_level < 0)


def _registered(tensors, options, heads_first):
    forward_mode = getattr(forward_ad, "_current_level", 0) >= 0
    if forward_mode and any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise Error("attention: derivatives in forward mode are not supported")
    if not heads_first:
        return torch.ops.tilegrad.attention(*tensors, *options)
    q, k, v, *others = tensors
    out, lse = torch.ops.tilegrad.attention(_turned(q), _turned(k), _turned(v), *others, *options)
    return _turned(out), lse


def _turned(tensor):
    """(B, H, T, D) as (B, T, H, D), and back."""
    return tensor.transpose(1, 2)


# --- The work -----------------------------------------------------------------------------------------------


def _forward(tensors, options, heads_first):
    out, lse = _results(tensors, heads_first)
    _core.attention("flash", options, _memory(out), _memory(lse), _operands(tensors, heads_first), heads_first)
    return out, lse


def _backward(dout, dlse, out, lse, tensors, options, wanted, heads_first):
    """The gradients of the first tensors, laid out as these if they are dense; None where none is wanted."""
    gradients = to = tuple([torch.empty_like(x) if need else None for x, need in zip(tensors, wanted)])
    bias, rows = tensors[3], tensors[0].shape[2 if heads_first else 1]
    # A bias that is the same for every query has its gradient formed for all of them, and then summed.
    sums_rows = wanted[3] and bias.shape[2] == 1 != rows
    if sums_rows:
        to = (*to[:3], bias.new_empty((*bias.shape[:2], rows, bias.shape[3])), to[4])
    dlse = None if dlse is None else _memory(_flat(dlse))
    _core.attention_backward("flash", options, to if _lent else tuple(map(_memory, to)), _memory(_last_contiguous(dout)),
                             dlse, _memory(out), _memory(lse), _operands(tensors, heads_first), heads_first)
    if sums_rows:
        torch.sum(to[3], 2, keepdim=True, out=gradients[3])
    return gradients


def _results(tensors, heads_first=False):
    """Empty out and lse. The memory of out is (B, T, H, D) in any case, which is how a model goes on with it."""
    q, size = tensors[0], tensors[2].shape[3]
    if heads_first:
        batch, heads, queries, _ = q.shape
        row = heads * size
        out = q.new_empty_strided((batch, heads, queries, size), (queries * row, size, row, 1))
    else:
        batch, queries, heads, _ = q.shape
        out = q.new_empty((batch, queries, heads, size))
    if (accumulator := _ACCUMULATORS[q.dtype]) == q.dtype:  # naming the type would take PyTorch a microsecond
        return out, q.new_empty((batch, heads, queries))
    return out, q.new_empty((batch, heads, queries), dtype=accumulator)


def _core_options(tensors, options):
    seed = tensors[-1]
    return _core.AttentionOptions(*options, 0 if seed is None else seed.item())


def _operands(tensors, heads_first):
    q, k, v, bias, sinks, mask, alibi, k_lengths, cu_q, cu_k, _ = tensors
    rows = q.shape[2 if heads_first else 1]
    operands = (_last_contiguous(q), _last_contiguous(k), _last_contiguous(v), _every_query(bias, rows), _flat(sinks),
                _every_query(mask, rows), _flat(alibi), _flat(k_lengths), _flat(cu_q), _flat(cu_k))
    return operands if _lent else tuple(map(_memory, operands))


def _memory(tensor):
    """What the core takes for a tensor: itself or, if it cannot be lent, a NumPy array on the same memory, with bf16 as
    uint16."""
    if _lent or tensor is None:
        return tensor
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _flat(tensor):
    return None if tensor is None else tensor.resolve_neg().contiguous()


def _last_contiguous(tensor):
    if tensor.is_neg():  # its memory holds the opposite numbers
        tensor = tensor.resolve_neg()
    if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1:
        return tensor
    if tensor.layout is not torch.strided:
        raise Error(f"attention: a tensor of layout {tensor.layout} has no memory to read")
    return tensor.contiguous()


def _every_query(scores, rows):
    if scores is None or scores.dim() != 4:
        return scores
    scores = _last_contiguous(scores)
    return scores.expand(-1, -1, rows, -1) if scores.shape[2] == 1 else scores


# --- Gradients ----------------------------------------------------------------------------------------------


class _Attention(torch.autograd.Function):
    """The shorter way with gradients. Autograd goes through all arguments, so what has no gradient is one of them."""

    @staticmethod
    def forward(ctx, q, k, v, bias, sinks, others, options, heads_first):
        tensors = (q, k, v, bias, sinks, *others)
        ctx.options, ctx.core_options, ctx.heads_first = options, _core_options(tensors, options), heads_first
        out, lse = _forward(tensors, ctx.core_options, heads_first)
        ctx.save_for_backward(out, lse, *tensors)
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx, dout, dlse):
        out, lse, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:_TRACKED]
        if dout is None:
            dout = torch.zeros_like(out)
        if torch.is_grad_enabled():  # create_graph: the registered op says that there are no second derivatives
            gradients = _registered_backward(dout, dlse, out, lse, tensors, ctx.options, wanted, ctx.heads_first)
            gradients = [x if need else None for x, need in zip(gradients, wanted)]
        else:
            gradients = _backward(dout, dlse, out, lse, tensors, ctx.core_options, wanted, ctx.heads_first)
        return *gradients, None, None, None


def _registered_backward(dout, dlse, out, lse, tensors, options, wanted, heads_first):
    if heads_first:
        dout, out = _turned(dout), _turned(out)
        tensors = (*map(_turned, tensors[:3]), *tensors[3:])
    gradients = torch.ops.tilegrad.attention_backward(dout, dlse, out, lse, *tensors, *options, wanted)
    if not heads_first:
        return gradients
    return *(_turned(x) if need else x for x, need in zip(gradients[:3], wanted)), *gradients[3:]


# --- The registered ops -------------------------------------------------------------------------------------


def _attention(*arguments):
    tensors, options = arguments[:_TENSORS], arguments[_TENSORS:]
    return _forward(tensors, _core_options(tensors, options), heads_first=False)


def _attention_like(*arguments):
    return _results(arguments[:_TENSORS])


def _attention_backward(dout, dlse, out, lse, *arguments):
    *arguments, wanted = arguments
    tensors, options = arguments[:_TENSORS], arguments[_TENSORS:]
    gradients = _backward(dout, dlse, out, lse, tensors, _core_options(tensors, options), wanted, heads_first=False)
    return tuple(tensors[0].new_empty(0) if x is None else x for x in gradients)  # an op returns tensors


def _attention_backward_like(dout, dlse, out, lse, *arguments):
    *arguments, wanted = arguments
    q = arguments[0]
    return tuple(torch.empty_like(x) if need else q.new_empty(0) for x, need in zip(arguments[:_TRACKED], wanted))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*output, *inputs[:_TENSORS])
    ctx.options = inputs[_TENSORS:]
    ctx.set_materialize_grads(False)


def _gradients(ctx, dout, dlse):
    out, lse, *tensors = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:_TRACKED])
    if dout is None:
        dout = torch.zeros_like(out)
    gradients = torch.ops.tilegrad.attention_backward(dout, dlse, out, lse, *tensors, *ctx.options, wanted)
    missing = (None,) * (_TENSORS - _TRACKED + len(ctx.options))
    return tuple(x if need else None for x, need in zip(gradients, wanted)) + missing


def _no_second_derivatives(ctx, *_):
    raise Error("attention: second derivatives are not supported")


_library.impl("attention", _attention, "CPU")
_library.impl("attention_backward", _attention_backward, "CPU")
torch.library.register_fake("tilegrad::attention", _attention_like, lib=_library)
torch.library.register_fake("tilegrad::attention_backward", _attention_backward_like, lib=_library)
torch.library.register_autograd("tilegrad::attention", _gradients, setup_context=_save, lib=_library)
torch.library.register_autograd("tilegrad::attention_backward", _no_second_derivatives, lib=_library)
use_torch_threads()

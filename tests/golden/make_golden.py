"""Writes the files of this folder with PyTorch, in float64: python3 make_golden.py (needs torch and safetensors).

What they hold, and how the tests name it: a gradient is d + the name of its tensor.
"""

import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
torch.manual_seed(1)
torch.set_default_dtype(torch.float64)


def save(name, tensors):
    save_file({key: t.detach().contiguous() for key, t in tensors.items()}, HERE / name)


def causal_attention(q, k, v):
    """(B, T, H, D) tensors; PyTorch wants (B, H, T, D)."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


def attention():
    tensors = {}
    for kind, kv_heads in (("mha", 4), ("gqa", 2), ("mqa", 1)):
        q, k, v = (torch.randn(2, 7, heads, 6, requires_grad=True) for heads in (4, kv_heads, kv_heads))
        dout = torch.randn(2, 7, 4, 6)
        out = causal_attention(q, k, v)
        out.backward(dout)
        case = dict(q=q, k=k, v=v, dout=dout, out=out, dq=q.grad, dk=k.grad, dv=v.grad)
        tensors |= {f"{kind}.{key}": t for key, t in case.items()}
    save("attention.safetensors", tensors)


def adamw():
    """Three steps, each with a gradient of its own, clipped to norm 1. Decay on the matrix alone."""
    matrix, bias = torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(4))
    optimizer = torch.optim.AdamW(
        [{"params": [matrix], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}], lr=0.05, betas=(0.9, 0.99)
    )
    tensors = {"matrix.0": matrix.detach().clone(), "bias.0": bias.detach().clone()}
    for step in range(1, 4):
        for name, p in (("matrix", matrix), ("bias", bias)):
            p.grad = torch.randn_like(p)
            tensors[f"{name}.grad.{step}"] = p.grad.clone()
        # A longer gradient is scaled down to norm 1 (clip_grad_norm_ would add 1e-6 to the norm).
        norm = torch.sqrt(matrix.grad.square().sum() + bias.grad.square().sum())
        matrix.grad /= norm.clamp(min=1)
        bias.grad /= norm.clamp(min=1)
        optimizer.step()
        tensors |= {f"matrix.{step}": matrix.detach().clone(), f"bias.{step}": bias.detach().clone()}
    save("adamw.safetensors", tensors)


def block():
    """Pre-norm block, width 8, 4 query heads on 2 key/value heads, hidden 12, biases, gelu in its tanh form."""
    width, heads, kv_heads, hidden = 8, 4, 2, 12
    kv_width = width // heads * kv_heads
    shapes = {
        "norm_attention.weight": (width,),
        "norm_attention.bias": (width,),
        "attention.query.weight": (width, width),
        "attention.query.bias": (width,),
        "attention.key.weight": (kv_width, width),
        "attention.key.bias": (kv_width,),
        "attention.value.weight": (kv_width, width),
        "attention.value.bias": (kv_width,),
        "attention.output.weight": (width, width),
        "attention.output.bias": (width,),
        "norm_mlp.weight": (width,),
        "norm_mlp.bias": (width,),
        "mlp.up.weight": (hidden, width),
        "mlp.up.bias": (hidden,),
        "mlp.down.weight": (width, hidden),
        "mlp.down.bias": (width,),
    }
    p = {name: (torch.randn(shape) / math.sqrt(shape[-1])).requires_grad_() for name, shape in shapes.items()}
    x = torch.randn(2, 5, width, requires_grad=True)
    dy = torch.randn(2, 5, width)

    def linear(name, h):
        return F.linear(h, p[name + ".weight"], p[name + ".bias"])

    def norm(name, h):
        return F.layer_norm(h, (width,), p[name + ".weight"], p[name + ".bias"])

    h = norm("norm_attention", x)
    q, k, v = (linear(f"attention.{part}", h).unflatten(-1, (-1, width // heads)) for part in ("query", "key", "value"))
    h = x + linear("attention.output", causal_attention(q, k, v).flatten(2))
    y = h + linear("mlp.down", F.gelu(linear("mlp.up", norm("norm_mlp", h)), approximate="tanh"))
    y.backward(dy)
    tensors = {"x": x, "y": y, "dy": dy, "dx": x.grad}
    save("block.safetensors", tensors | p | {"d" + name: t.grad for name, t in p.items()})


attention()
adamw()
block()

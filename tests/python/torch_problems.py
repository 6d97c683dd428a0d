"""What the tests beside PyTorch share: small tensors, gradients, comparison."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Teams of OpenMP meet at barriers, which takes long for thousands of small calls on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def leaf(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()


def heads_first(batch=2, heads=4, kv_heads=4, tq=9, tk=11, dim=8, dtype=torch.float64):
    return leaf(batch, heads, tq, dim, dtype=dtype), leaf(batch, kv_heads, tk, dim + 0, dtype=dtype), \
        leaf(batch, kv_heads, tk, dim, dtype=dtype)


def gradients(out, inputs):
    cotangent = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad(out, inputs, cotangent)


def close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)

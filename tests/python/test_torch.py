"""tilegrad.torch beside PyTorch: results, gradients, types, layouts, errors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: these tests were not run")
F = torch.nn.functional

import oracle  # noqa: E402
import tilegrad  # noqa: E402
import tilegrad.torch as tt  # noqa: E402
from problems import PACKED, tensors  # noqa: E402
from torch_problems import close, gradients, heads_first, leaf, one_thread  # noqa: E402, F401


# --- scaled_dot_product_attention ---------------------------------------------------------------------------

SDPA_CASES = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.7},
    "bool mask": {"attn_mask": torch.rand(2, 4, 9, 11, generator=torch.Generator().manual_seed(1)) < 0.8},
    "bool mask for all queries": {"attn_mask": torch.tensor([[True] * 11, [True] * 6 + [False] * 5])[:, None, None]},
    "mask of two axes": {"attn_mask": leaf(9, 11).detach()},
    "mask for all keys": {"attn_mask": leaf(2, 4, 9, 1).detach()},
    "mask that is turned": {"attn_mask": leaf(2, 4, 11, 9).detach().transpose(2, 3)},
}


@pytest.mark.parametrize("arguments", SDPA_CASES.values(), ids=SDPA_CASES.keys())
def test_results_and_gradients_are_those_of_pytorch(arguments):
    inputs = heads_first()
    ours, theirs = (f(*inputs, **arguments) for f in (tt.scaled_dot_product_attention, F.scaled_dot_product_attention))
    close([ours], [theirs])
    close(gradients(ours, inputs), gradients(theirs, inputs))


@pytest.mark.parametrize("shape", [(2, 4, 9, 11), (1, 4, 9, 11), (2, 1, 9, 11), (2, 4, 1, 11), (1, 1, 1, 11),
                                   (4, 1, 11), (9, 11), (9, 1), (1, 1)], ids=str)
def test_a_mask_that_is_broadcast_has_its_gradient(shape):
    inputs, mask = heads_first(), leaf(*shape)
    ours = tt.scaled_dot_product_attention(*inputs, attn_mask=mask)
    theirs = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    close(gradients(ours, (*inputs, mask)), gradients(theirs, (*inputs, mask)))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
def test_any_number_of_leading_axes(lead):
    inputs = leaf(*lead, 4, 9, 8), leaf(*lead, 2, 11, 8), leaf(*lead, 2, 11, 8)
    mask = leaf(*lead, 1, 9, 11)
    arguments = {"attn_mask": mask, "enable_gqa": True}
    ours, theirs = (f(*inputs, **arguments) for f in (tt.scaled_dot_product_attention, F.scaled_dot_product_attention))
    close([ours], [theirs])
    close(gradients(ours, (*inputs, mask)), gradients(theirs, (*inputs, mask)))


def test_what_pytorch_lacks_follows_the_formulas():
    q, k, v = (torch.from_numpy(x) for x in tensors())
    sinks, slopes = torch.randn(4, dtype=torch.float64), torch.tensor([0.5, 0.25, 0.125, 0.0625], dtype=torch.float64)
    out = tt.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), enable_gqa=True, window=(5, 2),
                                          softcap=1.5, sinks=sinks, alibi_slopes=slopes)
    expected, _ = oracle.attention(q, k, v, window=(5, 2), align="top_left", softcap=1.5, sinks=sinks,
                                   alibi_slopes=slopes)
    np.testing.assert_allclose(out.transpose(1, 2), expected, rtol=1e-11, atol=1e-12)


# --- flash-attn's functions ---------------------------------------------------------------------------------


def test_flash_attn_func_follows_the_formulas():
    q, k, v = (torch.from_numpy(x) for x in tensors())
    options = {"causal": True, "window_size": (7, -1), "softcap": 2.0, "softmax_scale": 0.4}
    out, lse, probabilities = tt.flash_attn_func(q, k, v, **options, return_attn_probs=True)
    expected, expected_lse = oracle.attention(q, k, v, causal=True, window=(7, 0), softcap=2.0, scale=0.4)
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-11, atol=1e-12)
    assert probabilities is None
    assert torch.equal(tt.flash_attn_func(q, k, v, **options), out)


def test_flash_attn_func_takes_slopes_for_each_batch_row():
    q, k, v = (torch.from_numpy(x) for x in tensors())
    slopes = torch.rand(2, 4, dtype=torch.float64)
    bias = torch.ones(2, 1, 1, 45, dtype=torch.float64)
    out, lse, _ = tt.flash_attn_func(q, k, v, alibi_slopes=slopes, attn_bias=bias, return_attn_probs=True)
    for b in range(2):
        row = slice(b, b + 1)
        expected, expected_lse = oracle.attention(q[row], k[row], v[row], alibi_slopes=slopes[b],
                                                  bias=np.ones((1, 1, 1, 45)))
        np.testing.assert_allclose(out[row], expected, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(lse[row], expected_lse, rtol=1e-11, atol=1e-12)


def test_flash_attn_varlen_func_follows_the_formulas():
    q, k, v = (torch.from_numpy(x[0]) for x in tensors(batch=1))
    cu_q, cu_k = (torch.tensor(x, dtype=torch.int32) for x in PACKED.values())
    out, lse, _ = tt.flash_attn_varlen_func(q, k, v, cu_q, cu_k, 25, 30, causal=True, return_attn_probs=True)
    expected, expected_lse = oracle.attention(q[None], k[None], v[None], causal=True, **PACKED)
    assert out.shape == (37, 4, 6) and lse.shape == (4, 37)
    np.testing.assert_allclose(out, expected[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(lse, expected_lse[0], rtol=1e-11, atol=1e-12)


# --- LSE and dropout ----------------------------------------------------------------------------------------


def test_lse_has_a_gradient_and_needs_no_other():
    q, k, v = leaf(1, 5, 2, 3), leaf(1, 6, 2, 3), leaf(1, 6, 2, 3)
    lse = tt.flash_attn_func(q, k, v, return_attn_probs=True)[1]
    expected = torch.logsumexp(torch.einsum("bihd,bjhd->bhij", q, k) / 3**0.5, -1)
    close([lse], [expected])
    close(gradients(lse, (q, k)), gradients(expected, (q, k)))


def test_dropout_follows_the_seed_of_pytorch():
    inputs = heads_first()
    torch.manual_seed(1)
    first, second = (tt.scaled_dot_product_attention(*inputs, dropout_p=0.5) for _ in range(2))
    torch.manual_seed(1)
    again = tt.scaled_dot_product_attention(*inputs, dropout_p=0.5)
    assert torch.equal(first, again) and not torch.equal(first, second)


# --- Types, layouts, errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, bits", [(torch.bfloat16, 8), (torch.float16, 11)])
def test_16_bits_are_stored_and_float32_computes(dtype, bits):
    inputs = [x.detach().to(dtype).requires_grad_() for x in heads_first()]
    exact = [x.detach().float().requires_grad_() for x in inputs]
    mask = leaf(9, 11).detach().to(dtype)
    ours = tt.scaled_dot_product_attention(*inputs, attn_mask=mask)
    theirs = F.scaled_dot_product_attention(*exact, attn_mask=mask.float())
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), theirs, rtol=2.0 ** (1 - bits), atol=2.0**-bits)
    for a, b in zip(gradients(ours, inputs), gradients(theirs, exact)):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b, rtol=25 * 2.0**-bits, atol=12 * 2.0**-bits)


def test_gradients_are_laid_out_as_their_tensors():
    q = leaf(2, 9, 4, 8)
    turned = q.transpose(1, 2).detach().requires_grad_()
    out = tt.scaled_dot_product_attention(turned, *heads_first()[1:])
    assert gradients(out, (turned,))[0].stride() == turned.stride()


def test_tensors_that_do_not_lie_in_order_are_read_all_the_same():
    q, k, v = heads_first()
    odd = leaf(2, 4, 8, 11).transpose(2, 3)
    ours, theirs = (f(q, odd, v[:, :1].expand(-1, 4, -1, -1))
                    for f in (tt.scaled_dot_product_attention, F.scaled_dot_product_attention))
    close([ours], [theirs])


def message_of(f, *arguments, **options):
    with pytest.raises(tilegrad.Error) as caught:
        f(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors_say_what_is_wrong():
    q, k, v = (x.detach() for x in heads_first())
    sdpa = tt.scaled_dot_product_attention
    assert message_of(sdpa, q.int(), k.int(), v.int()) == \
        "attention: q is int32, not float32, float64, bfloat16 or float16"
    assert message_of(sdpa, q, k[:, :2], v[:, :2]) == "attention: 4 query and 2 key/value heads need enable_gqa=True"
    assert message_of(sdpa, q, k.float(), v) == "attention: dtypes differ: f64 and f32"
    assert message_of(sdpa, q[0, 0], k[0, 0], v[0, 0]) == \
        "attention: query, key and value are (..., H, T, D), not (9, 8), (11, 8) and (11, 8)"
    assert message_of(tt.flash_attn_func, q[0], k[0], v) == \
        "attention: q, k and v are (B, T, H, D), not (4, 9, 8), (4, 11, 8) and (2, 4, 11, 8)"
    assert message_of(sdpa, q.to("meta"), k, v) == "attention: q is on meta, not on the CPU"
    assert message_of(sdpa, q, k, v, attn_mask=torch.zeros(8, 11)) == \
        "attention: bias is (1, 1, 8, 11), not (1 or 2, 1 or 4, 9, 11)"
    assert "block_table" in message_of(tt.flash_attn_varlen_func, q[0], k[0], v[0], None, None, block_table=q)
    assert message_of(tt.flash_attn_func, q, q, q, dropout_p=1.5) == "attention: dropout is 1.5, not in [0, 1)"


def test_second_derivatives_are_an_error():
    inputs = heads_first()
    first = torch.autograd.grad(tt.scaled_dot_product_attention(*inputs).sum(), inputs, create_graph=True)
    with pytest.raises(tilegrad.Error, match="^attention: second derivatives are not supported$"):
        first[0].sum().backward()


def test_the_function_on_arrays_takes_tensors_but_does_not_lose_gradients():
    q, k, v = leaf(2, 9, 4, 8), leaf(2, 9, 4, 8), leaf(2, 9, 4, 8)
    assert message_of(tilegrad.attention, q, k, v) == \
        "attention: q requires a gradient, which would be lost; tilegrad.torch keeps it"
    with torch.no_grad():
        out = tilegrad.attention(q, k, v)
    assert torch.is_tensor(out) and torch.equal(out, tt.flash_attn_func(q, k, v))
    for dtype in (torch.bfloat16, torch.float16):
        stored = [x.detach().to(dtype) for x in (q, k, v)]
        assert torch.equal(tilegrad.attention(*stored), tt.flash_attn_func(*stored))
    assert message_of(tilegrad.attention, q.detach().int(), k, v) == \
        "attention: q is int32, not float32 or float64 or bfloat16 or float16"

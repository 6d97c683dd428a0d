"""tilegrad.torch beside PyTorch: results, gradients, registration, compilation, threads."""

import os
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: these tests were not run")
F = torch.nn.functional

import oracle  # noqa: E402
import tilegrad  # noqa: E402
import tilegrad.torch as tt  # noqa: E402
from problems import OPTIONS, PACKED, tensors  # noqa: E402


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
    ours, theirs = tt.scaled_dot_product_attention(*inputs, **arguments), F.scaled_dot_product_attention(*inputs, **arguments)
    close([ours], [theirs])
    close(gradients(ours, inputs), gradients(theirs, inputs))


@pytest.mark.parametrize("shape", [(2, 4, 9, 11), (1, 4, 9, 11), (2, 1, 9, 11), (2, 4, 1, 11), (1, 1, 1, 11), (4, 1, 11),
                                   (9, 11), (9, 1), (1, 1)], ids=str)
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
    expected, _ = oracle.attention(q, k, v, window=(5, 2), align="top_left", softcap=1.5, sinks=sinks, alibi_slopes=slopes)
    np.testing.assert_allclose(out.transpose(1, 2), expected, rtol=1e-11, atol=1e-12)


# --- flash-attn's functions ---------------------------------------------------------------------------------


def test_flash_attn_func_follows_the_formulas():
    q, k, v = (torch.from_numpy(x) for x in tensors())
    out, lse, probabilities = tt.flash_attn_func(q, k, v, causal=True, window_size=(7, -1), softcap=2.0,
                                                 softmax_scale=0.4, return_attn_probs=True)
    expected, expected_lse = oracle.attention(q, k, v, causal=True, window=(7, 0), softcap=2.0, scale=0.4)
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-11, atol=1e-12)
    assert probabilities is None
    assert torch.equal(tt.flash_attn_func(q, k, v, causal=True, window_size=(7, -1), softcap=2.0, softmax_scale=0.4), out)


def test_flash_attn_func_takes_slopes_for_each_batch_row():
    q, k, v = (torch.from_numpy(x) for x in tensors())
    slopes = torch.rand(2, 4, dtype=torch.float64)
    out, lse, _ = tt.flash_attn_func(q, k, v, alibi_slopes=slopes, attn_bias=torch.ones(2, 1, 1, 45, dtype=torch.float64),
                                     return_attn_probs=True)
    for b in range(2):
        row = slice(b, b + 1)
        expected, expected_lse = oracle.attention(q[row], k[row], v[row], alibi_slopes=slopes[b], bias=np.ones((1, 1, 1, 45)))
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


# --- Registration -------------------------------------------------------------------------------------------

OP = {"causal": True, "align": "bottom_right", "left": 5, "right": None, "scale": None, "softcap": 2.0, "dropout": 0.0}


def op_arguments(**given):
    names = ("bias", "sinks", "mask", "alibi", "k_lengths", "cu_q", "cu_k", "seed")
    q, k, v = leaf(2, 5, 4, 3), leaf(2, 6, 2, 3), leaf(2, 6, 2, 3)
    return (q, k, v, *(given.get(name) for name in names), *(OP | {"dropout": given.get("dropout", 0.0)}).values())


OP_CASES = {
    "plain": {},
    "bias, sinks": {"bias": leaf(2, 1, 5, 6), "sinks": leaf(4)},
    "bias for all queries": {"bias": leaf(1, 4, 1, 6)},
    "mask": {"mask": torch.tensor([True, True, False, True, True, True]).reshape(1, 1, 1, 6)},
    "alibi": {"alibi": torch.tensor([0.5, 0.25, 0.125, 0.0625], dtype=torch.float64)},
    "dropout": {"seed": torch.tensor(5), "dropout": 0.3},
}


@pytest.mark.parametrize("given", OP_CASES.values(), ids=OP_CASES.keys())
def test_gradients_are_derivatives(given):
    arguments = op_arguments(**given)
    differentiable = [x for x in arguments if torch.is_tensor(x) and x.requires_grad]
    places = [i for i, x in enumerate(arguments) if torch.is_tensor(x) and x.requires_grad]

    def call(*values):
        changed = list(arguments)
        for place, value in zip(places, values):
            changed[place] = value
        return torch.ops.tilegrad.attention(*changed)

    assert torch.autograd.gradcheck(call, differentiable)


@pytest.mark.parametrize("given", [OP_CASES["bias, sinks"], OP_CASES["bias for all queries"]], ids=["all", "broadcast"])
def test_the_op_keeps_the_rules_of_pytorch(given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = torch.library.opcheck(torch.ops.tilegrad.attention.default, op_arguments(**given))
    assert set(result.values()) == {"SUCCESS"}


def test_it_compiles_as_one_graph():
    inputs = *heads_first(dtype=torch.float32), leaf(4, dtype=torch.float32)

    def f(q, k, v, sinks):
        return tt.scaled_dot_product_attention(q * 2, k, v, is_causal=True, window=(4, None), softcap=3.0, sinks=sinks) + 1

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    close([compiled(*inputs)], [f(*inputs)])
    close(gradients(compiled(*inputs), inputs), gradients(f(*inputs), inputs))


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


def test_bfloat16_is_stored_and_float32_computes():
    inputs = [x.detach().bfloat16().requires_grad_() for x in heads_first()]
    exact = [x.detach().float().requires_grad_() for x in inputs]
    mask = leaf(9, 11).detach().float()
    ours = tt.scaled_dot_product_attention(*inputs, attn_mask=mask.bfloat16())
    theirs = F.scaled_dot_product_attention(*exact, attn_mask=mask.bfloat16().float())
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), theirs, rtol=2**-7, atol=2**-8)
    for a, b in zip(gradients(ours, inputs), gradients(theirs, exact)):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b, rtol=0.1, atol=0.05)


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
    assert message_of(sdpa, q.half(), k.half(), v.half()) == \
        "attention: q is float16, not float32, float64 or bfloat16; convert it to bfloat16 or float32"
    assert message_of(sdpa, q, k[:, :2], v[:, :2]) == "attention: 4 query and 2 key/value heads need enable_gqa=True"
    assert message_of(sdpa, q, k.float(), v) == "attention: dtypes differ: f64 and f32"
    assert message_of(sdpa, q[0, 0], k[0, 0], v[0, 0]) == \
        "attention: query, key and value are (..., H, T, D), not (9, 8), (11, 8) and (11, 8)"
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
    bf16 = [x.detach().bfloat16() for x in (q, k, v)]
    assert torch.equal(tilegrad.attention(*bf16), tt.flash_attn_func(*bf16))
    assert message_of(tilegrad.attention, q.detach().half(), k, v) == \
        "attention: q is float16, not float32 or float64 or bfloat16"


# --- Threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [OPTIONS["causal"], OPTIONS["softcap"]], ids=["causal", "softcap"])
def test_the_bits_are_those_of_the_function_on_arrays(options):
    q, k, v = tensors(tq=200, tk=200, dtype=np.float32)
    expected = tilegrad.attention(q, k, v, **options)
    given = [torch.from_numpy(x) for x in (q, k, v)]
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert (tt.flash_attn_func(*given, **options).numpy() == expected).all()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_as_well():
    q, k, v = (torch.from_numpy(x) for x in tensors(tq=200, tk=200, dtype=np.float32))
    torch.set_num_threads(2)
    expected = tt.flash_attn_func(q, k, v)
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(60)
        os._exit(0 if torch.equal(tt.flash_attn_func(q, k, v), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

"""tilegrad.attention and its backward on NumPy arrays: results, gradients, layouts, types."""

import numpy as np
import pytest

import oracle
import tilegrad
from problems import OPTIONS, PACKED, random, tensors

KERNELS = ("flash", "naive")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_out_and_lse_are_those_of_the_formulas(options, kernel):
    q, k, v = tensors()
    out, lse = tilegrad.attention(q, k, v, kernel=kernel, return_lse=True, **options)
    expected_out, expected_lse = oracle.attention(q, k, v, **options)
    np.testing.assert_allclose(out, expected_out, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": (3, 0), "softcap": 1.0}])
def test_packed_sequences_see_nothing_of_each_other(options, kernel):
    q, k, v = tensors(batch=1)
    out, lse = tilegrad.attention(q, k, v, kernel=kernel, return_lse=True, **options, **PACKED)
    expected_out, expected_lse = oracle.attention(q, k, v, **options, **PACKED)
    np.testing.assert_allclose(out, expected_out, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-12, atol=1e-13)


def directional(f, x, direction, step=1e-5):
    """The derivative of f at x along a direction."""
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradients_are_the_derivatives_of_the_formulas(options, kernel):
    inputs = dict(zip("qkv", tensors()))
    inputs |= {name: options[name] for name in ("bias", "sinks") if name in options}
    fixed = {name: value for name, value in options.items() if name not in inputs}
    out, lse = tilegrad.attention(**inputs, **fixed, return_lse=True)
    dout, dlse = random(6, *out.shape), random(7, *lse.shape)
    dlse[~np.isfinite(lse)] = 0
    dq, dk, dv, extra = tilegrad.attention_backward(dout, *(inputs[x] for x in "qkv"), out, lse, dlse=dlse,
                                                    kernel=kernel, **options)
    gradients = {"q": dq, "k": dk, "v": dv} | extra
    assert gradients.keys() == inputs.keys()
    for name, x in inputs.items():

        def root(value):
            out, lse = oracle.attention(**(inputs | {name: value}), **fixed)
            return (out * dout).sum() + (np.where(np.isfinite(lse), lse, 0) * dlse).sum()

        assert gradients[name].shape == x.shape
        direction = random(8, *x.shape)
        expected = directional(root, x, direction)
        np.testing.assert_allclose((gradients[name] * direction).sum(), expected, rtol=1e-7, atol=1e-7, err_msg=name)


def test_dropout_drops_the_same_in_both_passes():
    q, k, v = tensors(dim_v=45)
    v[:] = np.eye(45)[None, :, None, :]  # then out holds the dropped probabilities themselves
    out, lse = tilegrad.attention(q, k, v, dropout=0.4, seed=5, return_lse=True)
    undropped = tilegrad.attention(q, k, v)
    kept = out != 0
    assert 0.55 < kept.mean() < 0.65
    np.testing.assert_allclose(out[kept], undropped[kept] / 0.6, rtol=1e-12)
    assert (tilegrad.attention(q, k, v, dropout=0.4, seed=6) != 0).tolist() != kept.tolist()
    dout = random(6, *out.shape)
    dv = tilegrad.attention_backward(dout, q, k, v, out, lse, dropout=0.4, seed=5)[2]
    expected = np.einsum("bihj,bihd->bjhd", out, dout).reshape(2, 45, 2, 2, 45).sum(3)
    np.testing.assert_allclose(dv, expected, rtol=1e-11, atol=1e-12)


# --- Layouts ------------------------------------------------------------------------------------------------


def heads_first(x):
    return np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)


def backwards(x):
    return np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1]


def with_gaps(x):
    room = np.full((*x.shape[:3], x.shape[3] + 3), np.nan, x.dtype)
    room[..., : x.shape[3]] = x
    return room[..., : x.shape[3]]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", [heads_first, backwards, with_gaps, read_only])
def test_strides_do_not_change_a_bit(layout, kernel):
    q, k, v = tensors(dtype=np.float32)
    out, lse = tilegrad.attention(q, k, v, causal=True, kernel=kernel, return_lse=True)
    dout = random(6, *out.shape, dtype=np.float32)
    gradients = tilegrad.attention_backward(dout, q, k, v, out, lse, causal=True, kernel=kernel)
    q, k, v, dout, out_again = (layout(x) for x in (q, k, v, dout, out))
    assert (tilegrad.attention(q, k, v, causal=True, kernel=kernel) == out).all()
    again = tilegrad.attention_backward(dout, q, k, v, out_again, lse, causal=True, kernel=kernel)
    for a, b in zip(gradients[:3], again[:3]):
        assert (a == b).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_array_that_repeats_itself_by_a_stride_of_0_is_read_as_it_is(kernel):
    q, k, v = tensors()
    one_key, one_value = (np.broadcast_to(x[:, :1], x.shape) for x in (k, v))
    out = tilegrad.attention(q, one_key, one_value, kernel=kernel)
    np.testing.assert_allclose(out, oracle.attention(q, one_key, one_value)[0], rtol=1e-12)


def test_inputs_are_not_copied():
    huge = np.broadcast_to(np.zeros((1, 1, 1, 64), np.float32), (1, 2**24, 1, 64))  # 4 GiB if it were copied
    out = tilegrad.attention(np.zeros((1, 1, 1, 64), np.float32), huge, huge, window=(3, None))
    assert out.shape == (1, 1, 1, 64)


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (2, 0, 2, 4), (1, 3, 2, 0), (2, 3, 0, 4)])
def test_empty_arrays_give_empty_results(shape):
    q = np.zeros(shape)
    k = np.zeros(shape[:2] + (2,) + shape[3:])
    out, lse = tilegrad.attention(q, k, k, return_lse=True)
    assert out.shape == shape and lse.shape == (shape[0], shape[2], shape[1])
    assert [x.shape for x in tilegrad.attention_backward(out, q, k, k, out, lse)[:3]] == [q.shape, k.shape, k.shape]


def test_no_keys_give_zeros():
    out, lse = tilegrad.attention(np.ones((1, 3, 2, 4)), np.ones((1, 0, 2, 4)), np.ones((1, 0, 2, 4)), return_lse=True)
    assert (out == 0).all() and (lse == -np.inf).all()


# --- Types and libraries ------------------------------------------------------------------------------------


def test_float32_agrees_with_float64_to_its_precision():
    q, k, v = tensors(dtype=np.float32)
    out, lse = tilegrad.attention(q, k, v, causal=True, return_lse=True)
    assert out.dtype == lse.dtype == np.float32
    np.testing.assert_allclose(out, oracle.attention(q, k, v, causal=True)[0], rtol=1e-5, atol=1e-6)


def test_bfloat16_stores_and_float32_computes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    q, k, v = (x.astype(ml_dtypes.bfloat16) for x in tensors())
    out, lse = tilegrad.attention(q, k, v, return_lse=True)
    assert out.dtype == ml_dtypes.bfloat16 and lse.dtype == np.float32
    exact = tilegrad.attention(*(x.astype(np.float32) for x in (q, k, v)))
    np.testing.assert_allclose(out.astype(np.float32), exact, rtol=2**-8, atol=1e-6)
    dq, dk, dv, _ = tilegrad.attention_backward(out, q, k, v, out, lse)
    assert dq.dtype == dk.dtype == dv.dtype == ml_dtypes.bfloat16


def test_float16_stores_and_float32_computes():
    q, k, v = (x.astype(np.float16) for x in tensors())
    for kernel in ("flash", "naive"):
        out, lse = tilegrad.attention(q, k, v, return_lse=True, kernel=kernel)
        assert out.dtype == np.float16 and lse.dtype == np.float32
        exact = tilegrad.attention(*(x.astype(np.float32) for x in (q, k, v)), kernel=kernel)
        np.testing.assert_array_equal(out, exact.astype(np.float16))
        dq, dk, dv, _ = tilegrad.attention_backward(out, q, k, v, out, lse, kernel=kernel)
        assert dq.dtype == dk.dtype == dv.dtype == np.float16


def test_what_float16_cannot_hold_is_inf():
    q, k, v = (np.zeros((1, 2, 1, 4), np.float16) for _ in range(3))
    out, lse = tilegrad.attention(q, k[:, :1], v[:, :1], return_lse=True)
    dout = np.full(out.shape, 60000, np.float16)
    assert np.isinf(tilegrad.attention_backward(dout, q, k[:, :1], v[:, :1], out, lse)[2]).all()


class ByDlpack:
    """An array of some other library."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_anything_with_dlpack_is_an_array():
    q, k, v = tensors()
    assert (tilegrad.attention(*map(ByDlpack, (q, k, v))) == tilegrad.attention(q, k, v)).all()


def test_lengths_may_be_lists_and_integers_of_any_size():
    q, k, v = tensors()
    expected = tilegrad.attention(q, k, v, k_lengths=np.array([45, 11], np.int32))
    for lengths in ([45, 11], (45, 11), np.array([45, 11], np.int64), np.array([45, 0, 11], np.int32)[::2]):
        assert (tilegrad.attention(q, k, v, k_lengths=lengths) == expected).all()

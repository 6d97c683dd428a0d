"""What is wrong is an Error of one line, never a crash and never a silent result."""

import numpy as np
import pytest

import tilegrad
from problems import random, some_mask, tensors


def error(**changes):
    """The message of a call that is right but for the changes."""
    q, k, v = tensors()
    with pytest.raises(tilegrad.Error) as caught:
        tilegrad.attention(**({"q": q, "k": k, "v": v} | changes))
    message = str(caught.value)
    assert message.startswith("attention: ") and "\n" not in message
    return message.removeprefix("attention: ")


Q, K, V = tensors()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"q": Q[0]}, "q, k and v are (B, T, H, D), not (37, 4, 8), (2, 45, 2, 8) and (2, 45, 2, 6)"),
        ({"q": np.float64(1)}, "q is of type float64, not an array"),
        ({"q": Q.tolist()}, "q is of type list, not an array"),
        ({"k": None}, "k is None, not an array"),
        ({"k": K[:1]}, "batch, length or heads differ: q is (2, 37, 4, 8), k is (1, 45, 2, 8), v is (2, 45, 2, 6)"),
        ({"q": Q[..., :7]}, "head sizes differ: q is (2, 37, 4, 7), k is (2, 45, 2, 8)"),
        ({"q": Q[:, :, :3]}, "2 key/value heads do not divide 3 query heads"),
        ({"k": K[:, :, :0], "v": V[:, :, :0]}, "0 key/value heads do not divide 4 query heads"),
        ({"q": Q[..., ::-1]}, "the last axis of q is not contiguous"),
        ({"v": np.concatenate((V, V), -1)[..., ::2]}, "the last axis of v is not contiguous"),
        ({"q": Q.reshape(2, 37, 4, 2, 2, 2, 1)}, "q has 7 axes, at most 6 are possible"),
        # types
        ({"q": Q.astype(np.int32)}, "q is int32, not float32 or float64 or bfloat16 or float16"),
        ({"q": Q.astype(complex)}, "q is complex128, not float32 or float64 or bfloat16 or float16"),
        ({"q": Q.astype(np.uint16)}, "q is uint16, not float32 or float64 or bfloat16 or float16"),
        ({"q": Q.astype(object)}, "q is object, not float32 or float64 or bfloat16 or float16"),
        ({"q": Q.astype(">f8")}, "q is >f8, not float32 or float64 or bfloat16 or float16"),
        ({"q": Q.astype(np.float32)}, "dtypes differ: f32 and f64"),
        ({"q": np.ma.masked_array(Q)}, "q is a masked array, whose mask would be lost"),
        ({"sinks": random(5, 4, dtype=np.float32)}, "sinks is f32 (4), not f64 (4)"),
        ({"mask": random(4, 2, 1, 37, 45)}, "mask is float64, not bool or uint8"),
        ({"bias": some_mask(2, 1, 37, 45)}, "bias is bool, not float32 or float64 or bfloat16 or float16"),
        # shapes of the rest
        ({"bias": random(4, 37, 45)}, "bias is (37, 45), not (1 or 2, 1 or 4, 37, 45)"),
        ({"bias": random(4, 2, 2, 37, 45)}, "bias is (2, 2, 37, 45), not (1 or 2, 1 or 4, 37, 45)"),
        ({"mask": some_mask(2, 1, 37, 1)}, "mask is (2, 1, 37, 1), not (1 or 2, 1 or 4, 37, 45)"),
        ({"bias": random(4, 1, 1, 45, 37).swapaxes(2, 3)}, "the last axis of bias is not contiguous"),
        ({"sinks": random(5, 3)}, "sinks is f64 (3), not f64 (4)"),
        ({"alibi_slopes": random(5, 2, 4)}, "alibi is f64 (2, 4), not f64 (4)"),
        ({"k_lengths": [45, 46]}, "a key length is 46, not in [0, 45]"),
        ({"k_lengths": [45, -1]}, "a key length is -1, not in [0, 45]"),
        ({"k_lengths": [45, 2**31]}, "k_lengths has values beyond 2147483647"),
        ({"k_lengths": [45.0, 3.0]}, "k_lengths is float64, not int32 or int64"),
        ({"cu_seqlens_q": [0, 37]}, "cu_q and cu_k go together, cu_k is missing"),
        ({"cu_seqlens_q": [0, 37], "cu_seqlens_k": [0, 45]}, "packed sequences have batch 1, not 2"),
        # options
        ({"causal": True, "window": (3, 1)}, "causal sees nothing to the right, the window reaches 1"),
        ({"window": (-3, 1)}, "the window reaches -3 to the left and 1 to the right, neither may be negative"),
        ({"window": 3}, "the window is 3, not (left, right)"),
        ({"softcap": 0.0}, "softcap is 0, must be positive"),
        ({"dropout": 1.0}, "dropout is 1, not in [0, 1)"),
        ({"dropout": float("nan")}, "dropout is nan, not in [0, 1)"),
        ({"align": "left"}, "align is 'left', not 'bottom_right' or 'top_left'"),
        ({"kernel": "fast"}, "the kernel is 'fast', not 'flash' or 'naive'"),
        ({"seed": -1}, "causal=False, align='bottom_right', window=None, scale=None, softcap=None, dropout=0.0, seed=-1: "
                       "one is of the wrong type"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(changes, message):
    assert error(**changes) == message


def test_offsets_of_packed_sequences_are_checked():
    q, k, v = tensors(batch=1)

    def packed(cu_q, cu_k):
        return error(q=q, k=k, v=v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k)

    assert packed([0, 36], [0, 45]) == "cu_q runs from 0 to 36, not from 0 to 37"
    assert packed([0, 9, 5, 37], [0, 1, 2, 45]) == "cu_q falls from 9 to 5"
    assert packed([0, 9, 37], [0, 45]) == "cu_q has 2 sequences, cu_k 1"
    assert packed([], [0, 45]) == "cu_q is i32 (0), not i32 (sequences + 1)"


def test_unaligned_arrays_are_refused():
    memory = np.zeros(Q.nbytes + 1, np.uint8)
    unaligned = memory[1:].view(np.uint8)[: Q.nbytes].view(np.float64).reshape(Q.shape)
    assert error(q=unaligned) == "the elements of q do not lie at multiples of their size"
    records = np.zeros(Q.shape[:3], np.dtype([("x", np.float64, Q.shape[3:]), ("odd", np.uint8)]))
    assert error(q=records["x"]) == "the elements of q do not lie at multiples of their size"


@pytest.mark.parametrize("name", ["dout", "out", "lse", "dlse"])
def test_backward_checks_what_forward_gave(name):
    out, lse = tilegrad.attention(Q, K, V, return_lse=True)
    right = {"dout": out, "q": Q, "k": K, "v": V, "out": out, "lse": lse, "dlse": lse}
    shape = "(2, 37, 4, 6)" if name in ("dout", "out") else "(2, 4, 37)"
    with pytest.raises(tilegrad.Error) as caught:
        tilegrad.attention_backward(**(right | {name: right[name][:, :-1]}))
    assert str(caught.value).endswith(f", not f64 {shape}")
    with pytest.raises(tilegrad.Error, match="f32"):
        tilegrad.attention_backward(**(right | {name: right[name].astype(np.float32)}))


def test_results_are_not_written_to_read_only_memory():
    from tilegrad import _attention, _core

    call = _attention.prepare(Q, K, V)
    out, lse = np.zeros(call.out_shape), np.zeros(call.lse_shape)
    out.flags.writeable = False
    with pytest.raises(tilegrad.Error, match="^attention: out is not a writable array$"):
        _core.attention("flash", call.options, out, lse, call.operands)


def test_a_device_that_is_not_the_cpu_is_refused():
    class OnAnotherDevice:
        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, **options):
            raise BufferError("this array lies on a device that NumPy cannot read")

    assert error(q=OnAnotherDevice()).startswith("q cannot be read by DLPack: ")

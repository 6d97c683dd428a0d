"""tilegrad::attention as an op of PyTorch: registration, compilation, threads."""

import os
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: these tests were not run")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import tilegrad  # noqa: E402
import tilegrad.torch as tt  # noqa: E402
from problems import OPTIONS, interpreter_is_free_during, tensors  # noqa: E402
from tilegrad import _core, _torch_op  # noqa: E402
from torch_problems import close, gradients, heads_first, leaf, one_thread  # noqa: E402, F401

F = torch.nn.functional

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


@pytest.mark.parametrize("given", OP_CASES.values(), ids=OP_CASES.keys())
def test_the_op_keeps_the_rules_of_pytorch(given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = torch.library.opcheck(torch.ops.tilegrad.attention.default, op_arguments(**given))
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_compiles_as_one_graph(backend):
    inputs = *heads_first(dtype=torch.float32), leaf(4, dtype=torch.float32)

    def f(q, k, v, sinks):
        options = {"is_causal": True, "window": (4, None), "softcap": 3.0, "sinks": sinks}
        return tt.scaled_dot_product_attention(q * 2, k, v, **options) + 1

    compiled = torch.compile(f, fullgraph=True, backend=backend)
    close([compiled(*inputs)], [f(*inputs)])
    close(gradients(compiled(*inputs), inputs), gradients(f(*inputs), inputs))


# --- What has to see the op ----------------------------------------------------------------------------------


def test_the_transforms_of_torch_func_go_through_the_op():
    q, k, v = (x.detach() for x in heads_first())
    rows = torch.func.vmap(lambda q, k, v: tt.scaled_dot_product_attention(q[None], k[None], v[None])[0])(q, k, v)
    close([rows], [F.scaled_dot_product_attention(q, k, v)])
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(lambda q: tt.scaled_dot_product_attention(q, k, v).sum())(q)


def test_a_mode_that_watches_the_ops_sees_it():
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, arguments=(), options=None):
            seen.append(op.name())
            return op(*arguments, **(options or {}))

    inputs = [x.detach() for x in heads_first()]
    with Watch():
        tt.scaled_dot_product_attention(*inputs)
    assert "tilegrad::attention" in seen


def test_a_derivative_forwards_is_an_error_and_never_lost():
    q, k, v = (x.detach() for x in heads_first())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q))
        with pytest.raises(tilegrad.Error, match="^attention: derivatives in forward mode are not supported$"):
            tt.scaled_dot_product_attention(dual, k, v)
        close([tt.scaled_dot_product_attention(q, k, v)], [F.scaled_dot_product_attention(q, k, v)])


def test_the_device_by_default_is_not_that_of_the_results():
    q, k, v = heads_first()
    expected = tt.scaled_dot_product_attention(q, k, v)
    with torch.device("meta"):
        out = tt.scaled_dot_product_attention(q, k, v)
    assert torch.equal(out, expected)


# --- Memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_lent_tensors_give_the_bits_of_numpy_arrays(dtype, monkeypatch):
    """The second way is that of PyTorch before 2.10."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in heads_first(kv_heads=2)]
    others = {"attn_mask": leaf(1, 4, 1, 11), "sinks": leaf(4), "alibi_slopes": torch.rand(4), "enable_gqa": True}

    def results():
        out = tt.scaled_dot_product_attention(*inputs, **others)
        mask = torch.rand(2, 1, 9, 11, generator=torch.Generator().manual_seed(1)) < 0.8
        masked = tt.scaled_dot_product_attention(*inputs, attn_mask=mask, enable_gqa=True)
        return out, masked, *gradients(out, (*inputs, others["attn_mask"], others["sinks"])), *gradients(masked, inputs)

    lent = results()
    monkeypatch.setattr(_torch_op, "_lent", False)
    assert all(torch.equal(a, b) for a, b in zip(lent, results(), strict=True))


def test_tensors_are_lent_from_pytorch_2_10_on():
    version = tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2])
    assert _torch_op._lent == (version >= (2, 10))
    assert not _core.read_tensors_of(torch.Tensor, None) and not _core.read_tensors_of(torch.Tensor, object())


def test_a_tensor_that_is_to_be_negated_is_read_as_such():
    q, k, v = (x.detach() for x in heads_first())
    for arguments in ((torch._neg_view(q), k, v), (q, torch._neg_view(k), v), (q, k, torch._neg_view(v))):
        exact = [x.resolve_neg() for x in arguments]
        assert torch.equal(tt.scaled_dot_product_attention(*arguments), tt.scaled_dot_product_attention(*exact))


def test_tensors_without_memory_are_an_error_of_one_line():
    q, k, v = (x.detach() for x in heads_first())
    with pytest.raises(tilegrad.Error, match="^attention: a tensor of layout torch.sparse_coo has no memory to read$"):
        tt.scaled_dot_product_attention(q, k.to_sparse(), v)


def test_the_output_lies_as_a_model_goes_on_with_it_and_may_be_changed():
    inputs = heads_first()
    out = tt.scaled_dot_product_attention(*inputs)
    assert out.transpose(1, 2).is_contiguous() and not out._is_view()
    scaled = tt.scaled_dot_product_attention(*inputs) * 1
    close(gradients(scaled.mul_(2), inputs), [2 * x for x in gradients(out, inputs)])


def test_the_interpreter_is_free_while_it_computes():
    q, k, v = (torch.from_numpy(x) for x in tensors(batch=1, tq=300, tk=300, dtype=np.float32))
    others = (None,) * 7
    out, lse = q.new_empty(1, 300, 4, 6), q.new_empty(1, 4, 300)
    options = _core.AttentionOptions(False, "top_left", None, None, None, None, 0.0, 0)
    assert interpreter_is_free_during(lambda: _core.attention("flash", options, out, lse, (q, k, v, *others)))
    to = (*map(torch.empty_like, (q, k, v)), None, None)
    assert interpreter_is_free_during(
        lambda: _core.attention_backward("flash", options, to, out, None, out, lse, (q, k, v, *others)))


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

"""tilegrad::attention as an op of PyTorch: registration, compilation, threads."""

import os
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: these tests were not run")

import tilegrad  # noqa: E402
import tilegrad.torch as tt  # noqa: E402
from problems import OPTIONS, tensors  # noqa: E402
from torch_problems import close, gradients, heads_first, leaf, one_thread  # noqa: E402, F401

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

"""tilegrad.Transformer: logits, gradients, generation, weights by name."""

import threading

import numpy as np
import pytest

import tilegrad

SMALL = {"vocabulary": 11, "context": 8, "layers": 2, "width": 8, "heads": 2, "init": "associative"}
VARIANTS = {
    "learned": {},
    "rope, grouped, swiglu": {"positions": "rope", "kv_heads": 1, "mlp": "swiglu", "norm": "rmsnorm", "bias": True},
    "alibi, window, softcap, sinks": {"positions": "alibi", "window": 3, "softcap": 5.0, "sinks": True, "tie": False},
}


def tokens(batch=3, time=8, seed=1):
    return np.random.default_rng(seed).integers(0, 11, (batch, time))


def model(**settings):
    return tilegrad.Transformer(**(SMALL | {"dtype": "f64"} | settings))


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def loss_of(m, x, y):
    picked = np.take_along_axis(log_softmax(m(x)), np.maximum(y, 0)[..., None], -1)[..., 0]
    return -picked[y >= 0].mean()


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_naive_and_flash_agree(settings):
    flash, naive = (model(attention=kernel, **settings)(tokens()) for kernel in ("flash", "naive"))
    assert flash.shape == (3, 8, 11) and flash.dtype == np.float64
    np.testing.assert_allclose(flash, naive, rtol=1e-10, atol=1e-12)


def test_there_are_as_many_key_heads_as_heads_unless_given():
    assert model().state_dict()["blocks.0.attention.key.weight"].shape == (8, 8)
    grouped = model(kv_heads=1)
    assert grouped.state_dict()["blocks.0.attention.key.weight"].shape == (4, 8)
    assert grouped.kv_bytes_per_token == model().kv_bytes_per_token / 2 and "kv_heads=1" in repr(grouped)


def test_a_token_sees_what_stands_before_it():
    m, x = model(), tokens()
    changed = x.copy()
    changed[:, 5:] = 0
    np.testing.assert_array_equal(m(x)[:, :5], m(changed)[:, :5])
    assert not np.array_equal(m(x)[:, 5:], m(changed)[:, 5:])


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_gradients_are_derivatives(settings):
    m, x, y = model(**settings), tokens(), tokens(seed=2)
    y[0, :3] = -1
    loss, gradients = m.gradients(x, y)
    assert loss == pytest.approx(loss_of(m, x, y), rel=1e-12)
    weights = m.state_dict()
    assert {name: g.shape for name, g in gradients.items()} == {name: w.shape for name, w in weights.items()}
    for name, w in weights.items():
        direction = np.random.default_rng(3).standard_normal(w.shape)
        losses = []
        for step in (1e-5, -1e-5):
            m.load_state_dict(weights | {name: w + step * direction})
            losses.append(loss_of(m, x, y))
        expected = (losses[0] - losses[1]) / 2e-5
        np.testing.assert_allclose((gradients[name] * direction).sum(), expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("checkpoint", ["block", 2, "attention", "mlp", "elementwise"])
def test_checkpoints_do_not_change_a_bit(checkpoint):
    plain, other = (model(dropout=0.2, dtype="f32", checkpoint=c) for c in ("none", checkpoint))
    (loss, gradients), (other_loss, others) = (m.gradients(tokens(), tokens(seed=2), step=5) for m in (plain, other))
    assert loss == other_loss and all((gradients[name] == others[name]).all() for name in gradients)
    assert plain.gradients(tokens(), tokens(seed=2), step=6)[0] != loss  # other masks


def test_plain_descent_learns():
    m, x = model(), tokens()
    first, _ = m.gradients(x[:, :-1], x[:, 1:])
    for _ in range(30):
        _, gradients = m.gradients(x[:, :-1], x[:, 1:])
        m.load_state_dict({name: w - 0.1 * gradients[name] for name, w in m.state_dict().items()})
    assert m.gradients(x[:, :-1], x[:, 1:])[0] < first / 2


# --- Generation ------------------------------------------------------------------------------------------------


def test_it_takes_the_likeliest_token():
    m, expected = model(), [3, 1]
    for _ in range(6):
        expected.append(int(m([expected])[0, -1].argmax()))
    generated = m.generate([3, 1], 6)
    assert generated.tolist() == expected[2:] and generated.dtype == np.int32


def test_the_seed_decides_what_is_drawn():
    draw = [model().generate([3, 1], 20, temperature=2.0, seed=seed).tolist() for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]
    assert model().generate([3], 5, temperature=1.0, top_k=1).tolist() == model().generate([3], 5).tolist()


# --- Weights -----------------------------------------------------------------------------------------------------


def test_it_has_the_weights_with_which_a_run_begins(tmp_path):
    run = tilegrad.train("sort", steps=1, lr=1e-30, min_lr=0.0, seed=3, batch=2, out=tmp_path / "run")
    settings = {name: run.config[name] for name in tilegrad.Transformer(**SMALL).settings}
    m = tilegrad.Transformer(run.model.vocabulary, **settings)
    for name, x in run.model.state_dict().items():
        np.testing.assert_allclose(x, m.state_dict()[name], rtol=0, atol=1e-29, err_msg=name)
    again = tilegrad.train("sort", steps=1, lr=1e-30, min_lr=0.0, batch=2, out=tmp_path / "again", **m.settings)
    assert again.metrics[0]["loss"] == run.metrics[0]["loss"]


def test_weights_go_to_a_file_and_back(tmp_path):
    first, second = model(seed=1), model(seed=2)
    assert not np.array_equal(first(tokens()), second(tokens()))
    first.save(tmp_path / "weights.safetensors")
    second.load(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(first(tokens()), second(tokens()))


def test_a_state_dict_is_a_copy():
    m = model()
    before = m(tokens())
    weights = m.state_dict()
    weights["tokens.weight"][:] = 0
    np.testing.assert_array_equal(m(tokens()), before)
    m.load_state_dict(weights)
    assert not np.array_equal(m(tokens()), before)


def test_results_outlive_the_model():
    m = model()
    logits, copy = m(tokens()), m(tokens()).copy()
    del m
    np.testing.assert_array_equal(logits, copy)
    logits += 1  # and are the caller's


def test_threads_call_one_model():
    m, x = model(dtype="f32"), tokens()
    expected, (loss, _) = m(x), m.gradients(x, x)
    faults = []

    def work():
        for _ in range(20):
            if m.gradients(x, x)[0] != loss or not np.array_equal(m(x), expected):
                faults.append("differs")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


# --- Errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: model(heads=3), "attention: heads 3 does not divide width 8"),
        (lambda: model(layers="2"), "Transformer: `layers` is not an integer"),
        (lambda: model(layers=None), "Transformer: `layers` is not an integer"),
        (lambda: model(mlp="tanh"), "Transformer: `mlp`: `tanh` is not one of gelu, relu, swiglu"),
        (lambda: model(dropout=float("nan")), "one is of the wrong type"),
        (lambda: model(vocabulary="11"), "one is of the wrong type"),
        (lambda: model(checkpoint="budget:1MiB"), "Transformer: checkpoint `budget:1MiB` is planned by train() alone"),
        (lambda: model(checkpoint=9), "checkpoint"),
        (lambda: model()([[1, 11]]), "11"),
        (lambda: model()([[1, -1]]), "-1"),
        (lambda: model()([[1, 2**40]]), "Transformer: tokens has values that are no tokens: 1 to 1099511627776"),
        (lambda: model()([[1.0]]), "Transformer: tokens is float64, not integers"),
        (lambda: model()([1]), "Transformer: tokens has the shape (1,), not (B, T)"),
        (lambda: model()([[1], [1, 2]]), "Transformer: tokens has rows of different lengths"),
        (lambda: model()(tokens(time=9)), "9"),
        (lambda: model().gradients(tokens(), tokens(batch=2)), "cross_entropy"),
        (lambda: model().generate([], 3), "generate: the prompt is empty"),
        (lambda: model().generate([1], 3, temperature=-1.0), "generate: temperature is -1, must not be negative"),
        (lambda: model().load_state_dict({}), "tokens.weight"),
        (lambda: model().load_state_dict(model().state_dict() | {"more": np.zeros(2)}), "tensor `more` (2)"),
        (lambda: model().load_state_dict(model(dtype="f32").state_dict()), "f32"),
        (lambda: model().load_state_dict({"tokens.weight": np.zeros(3, int)}), "neither float32 nor float64"),
        (lambda: model().load("nowhere"), "nowhere"),
        (lambda: model().save(3), "Transformer: 3 is not a path"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(tilegrad.Error) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)

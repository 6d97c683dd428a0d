"""The examples of docs/python.md run as they stand."""

import pathlib
import re

import numpy as np
import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs/python.md"


def examples(heading):
    """The blocks of Python under a heading."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_numpy():
    names = {}
    exec(examples("NumPy")[0], names)
    assert names["out"].shape == names["dq"].shape == (1, 512, 8, 64) and names["extra"]["sinks"].shape == (8,)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The names that the first example of training leaves."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(examples("Training")[0], names)
    return names


def test_training(trained, capsys):
    steps = {name: run.steps for name, run in trained["runs"].items()}
    np.testing.assert_allclose(steps["flash"]["loss"], steps["naive"]["loss"], rtol=1e-4)
    _, _, rest, model = examples("Training")
    exec(rest, trained)
    assert trained["logits"].shape == (1, 6, 3) and trained["weights"]["tokens.weight"].shape == (3, 48)
    assert len(trained["longer"].steps["step"]) == 60
    assert len(capsys.readouterr().out.split()) >= 6
    exec(model, trained)
    assert np.isfinite(trained["loss"]) and trained["loss"] < 4.3


def test_curves(trained):
    pytest.importorskip("pandas", reason="pandas is not installed: this example was not run")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: this example was not run").use("Agg")
    exec(examples("Training")[1], trained)
    assert trained["curves"].loc["flash"].shape[0] == 40


def test_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: this example was not run")
    q, k, v = (torch.randn(2, 4, 4, 8) for _ in range(3))  # as (B, H, T, D) and as (B, T, H, D)
    names = {"q": q, "k": k, "v": v, "sinks": torch.zeros(4), "bias": torch.zeros(4, 4)}
    calls = examples("PyTorch")[0].split("out = flash_attn_varlen_func")
    exec(calls[0], names)
    assert names["out"].shape == (2, 4, 4, 8) and names["lse"].shape == (2, 4, 4)
    offsets = torch.tensor([0, 1, 2], dtype=torch.int32)
    names |= {"q": q[:, 0], "k": k[:, 0], "v": v[:, 0], "cu_seqlens_q": offsets, "cu_seqlens_k": offsets}
    exec("out = flash_attn_varlen_func" + calls[1], names)
    assert names["out"].shape == (2, 4, 8)


def test_transformers():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: this example was not run")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: this example was not run")
    config = transformers.LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                      num_attention_heads=2)
    model = transformers.LlamaForCausalLM(config)
    exec(examples("transformers")[0], {"model": model})
    assert model.config._attn_implementation == "tilegrad"
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 9)

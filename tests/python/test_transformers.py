"""model.set_attn_implementation("tilegrad") against "eager": logits, losses of training, generation."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: these tests were not run")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: these tests were not run")

import tilegrad.transformers  # noqa: E402

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None,
         "eos_token_id": None}
MODELS = {
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0},
    "gpt_oss": {"sliding_window": 6, "num_local_experts": 2, "num_experts_per_tok": 1},
    "granite_swa": {"sliding_window": 6},
    "mistral": {"sliding_window": 6},
    "llama": {},
    "starcoder2": {"sliding_window": 6},
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    tilegrad.transformers.register()
    tilegrad.transformers.register()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # these models are too small for more
    yield
    torch.set_num_threads(before)


def make(name, implementation="eager", seed=0):
    if name not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(name, **SIZES, **MODELS[name])
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("sinks"):
                parameter.normal_()
    model.set_attn_implementation(implementation)
    return model


def tokens(batch=2, time=24, seed=1):
    return torch.randint(1, 50, (batch, time), generator=torch.Generator().manual_seed(seed))


def train(model, steps, **inputs):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(steps):
        ids = tokens(seed=step)
        loss = model(input_ids=ids, labels=ids, **inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", MODELS)
def test_training_has_the_losses_of_eager_attention(name):
    eager, ours = (train(make(name, implementation), 20) for implementation in ("eager", "tilegrad"))
    assert eager[0] != eager[-1]
    assert ours == pytest.approx(eager, abs=1e-5)


def both(name, **inputs):
    """Logits of both implementations."""
    model = make(name).eval()
    with torch.no_grad():
        eager = model(**inputs).logits
        model.set_attn_implementation("tilegrad")
        return eager, model(**inputs).logits


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_on_either_side(name, side):
    ids = tokens()
    mask = torch.ones_like(ids)
    if side != "right":
        mask[0, :5] = 0
    if side != "left":
        mask[1, 17:] = 0
    eager, ours = both(name, input_ids=ids, attention_mask=mask)
    real = mask.bool()
    torch.testing.assert_close(ours[real], eager[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_sequences_packed_by_positions(name):
    positions = torch.cat([torch.arange(n) for n in (9, 1, 14)] + [torch.arange(n) for n in (20, 4)]).reshape(2, 24)
    eager, ours = both(name, input_ids=tokens(), position_ids=positions, use_cache=False)
    torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)


def test_sequences_packed_by_offsets():
    ids, positions = tokens(batch=1), torch.cat([torch.arange(n) for n in (9, 1, 14)])[None]
    cu = torch.tensor([0, 9, 10, 24], dtype=torch.int32)
    model = make("gemma2", "tilegrad").eval()
    with torch.no_grad():
        by_positions = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        by_offsets = model(input_ids=ids, position_ids=positions, use_cache=False, cu_seq_lens_q=cu, cu_seq_lens_k=cu,
                           max_length_q=14, max_length_k=14).logits
    assert torch.equal(by_positions, by_offsets)


def test_a_mask_of_all_pairs_is_taken_as_it_is():
    pairs = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(2)) < 0.5
    pairs |= torch.eye(24, dtype=torch.bool)
    added = torch.zeros(pairs.shape).masked_fill(~pairs, torch.finfo(torch.float32).min)
    eager, ours = both("llama", input_ids=tokens(), attention_mask=added)
    torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_generation_with_a_cache(name):
    model, ids = make(name).eval(), tokens(time=12)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 12, "do_sample": False}
    eager = model.generate(**options)
    model.set_attn_implementation("tilegrad")
    assert torch.equal(model.generate(**options), eager)


def test_masks_of_other_kinds_fall_back_to_all_pairs():
    from transformers.masking_utils import chunked_causal_mask_function, sdpa_mask, sliding_window_causal_mask_function

    mask = tilegrad.transformers.attention_mask
    sizes = {"batch_size": 2, "q_length": 12, "kv_length": 12}
    chunked = chunked_causal_mask_function(5, torch.tensor([0, 2]))
    numbers = mask(**sizes, mask_function=chunked, allow_is_causal_skip=True, local_size=5)
    pairs = sdpa_mask(**sizes, mask_function=chunked, allow_is_causal_skip=False)[:, 0]
    same = numbers[:, :, None] == numbers[:, None, :]
    assert torch.equal(same & torch.ones(12, 12).tril().bool(), pairs)
    sliding = sliding_window_causal_mask_function(3)
    assert mask(**sizes, mask_function=sliding, allow_is_causal_skip=True, local_size=3) is None

    def blocks(b, h, q, k):
        return (k <= q) | (q // 4 == k // 4)

    assert torch.equal(mask(**sizes, mask_function=blocks), sdpa_mask(**sizes, mask_function=blocks, allow_is_causal_skip=False))


def test_dropout_is_applied_in_training_only():
    model = make("llama", "tilegrad")
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    ids = tokens()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)

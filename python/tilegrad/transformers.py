"""tilegrad as an attention implementation of transformers.

    import tilegrad.transformers
    tilegrad.transformers.register()
    model.set_attn_implementation("tilegrad")        # or from_pretrained(..., attn_implementation="tilegrad")

Grouped heads, sliding windows, softcap (Gemma 2), sinks (gpt-oss, GraniteSWA), dropout, padding on either side, and
packed sequences (by position_ids, or by cu_seq_lens as DataCollatorWithFlattening makes them) cost no memory that
grows with the square of the length. Padding is left out of the work: its outputs are 0. What else a model may ask for
(a mask of its own, tokens that see each other both ways) is given to the kernel as a mask of all pairs.
"""

from typing import Optional

import torch
import transformers
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from tilegrad._core import Error
from tilegrad._torch_op import attend

NAME = "tilegrad"


def register() -> None:
    """Makes "tilegrad" known to transformers. May be called again."""
    transformers.AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, attention_mask)


# --- Masks --------------------------------------------------------------------------------------------------


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset=0,
    kv_offset: int = 0,
    mask_function=None,
    attention_mask: Optional[torch.Tensor] = None,
    allow_is_causal_skip: bool = False,
    allow_is_bidirectional_skip: bool = False,
    local_size: Optional[int] = None,
    use_vmap: bool = False,
    config=None,
    device="cpu",
    **kwargs,
) -> Optional[torch.Tensor]:
    """What attention_forward gets as its attention_mask, once for each model:

    None                the options of the layer say it all;
    int32 (B, Tk)       the number of the sequence to which each token belongs, -1 for padding;
    bool (B, 1, Tq, Tk) which pairs are visible, options of the layer included.
    """

    def all_pairs():
        return sdpa_mask(batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset,
                         kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask,
                         allow_is_causal_skip=False, use_vmap=use_vmap, device=device, **kwargs)

    tracing = torch.compiler.is_compiling() or not isinstance(q_offset, int)
    if use_vmap or tracing or q_offset + q_length != kv_offset + kv_length:
        return all_pairs()
    padding = None if attention_mask is None else attention_mask[:, -kv_length:].bool()
    padding = None if padding is None or padding.all() else padding

    if q_length != kv_length:  # there is a cache
        chunked = local_size is not None and getattr(config, "attention_chunk_size", None) is not None
        plain = (allow_is_causal_skip or allow_is_bidirectional_skip) and not chunked
        return None if plain and padding is None else all_pairs()
    if allow_is_bidirectional_skip and local_size is None:
        starts = None
    elif allow_is_causal_skip and local_size is None:
        starts = None
    else:
        sees_previous, sees_next = _neighbours(mask_function, batch_size, kv_length, device)
        if sees_next.any():
            return all_pairs()
        starts = None if sees_previous.all() else ~sees_previous
    return _sequences(padding, starts)


def _neighbours(mask_function, batch, length, device):
    """(B, T - 1): whether token i sees i - 1, and i - 1 sees i. The mask functions of transformers (causal, sliding,
    chunked, packed, blockwise) differ from a causal one in sequences alone if nobody sees the next token: a sequence
    begins where a token does not see the one before it."""
    b = torch.arange(batch, device=device)[:, None]
    h = torch.zeros_like(b)
    i = torch.arange(1, length, device=device)[None, :]
    return (mask_function(b, h, *pair).expand(batch, length - 1) for pair in ((i, i - 1), (i - 1, i)))


def _sequences(padding, starts):
    if padding is None and starts is None:
        return None
    if starts is None:
        numbers = torch.zeros_like(padding, dtype=torch.int32)
    else:
        numbers = torch.nn.functional.pad(starts.cumsum(1, dtype=torch.int32), (1, 0))
    return numbers if padding is None else numbers.masked_fill(~padding, -1)


# --- Attention ----------------------------------------------------------------------------------------------


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Optional[torch.Tensor],
    dropout: float = 0.0,
    scaling: Optional[float] = None,
    sliding_window: Optional[int] = None,
    softcap: Optional[float] = None,
    is_causal: Optional[bool] = None,
    s_aux: Optional[torch.Tensor] = None,
    cu_seq_lens_q: Optional[torch.Tensor] = None,
    cu_seq_lens_k: Optional[torch.Tensor] = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """The function that transformers calls: query (B, Hq, Tq, D), key and value (B, Hkv, Tk, D) -> (B, Tq, Hq, D).

    sliding_window W are the W keys up to the query's own; s_aux are sinks.
    """
    if kwargs.get("output_attentions"):
        raise Error('attention: output_attentions needs attn_implementation="eager"')
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    causal = module.is_causal if is_causal is None else is_causal
    options = {"scale": scaling, "softcap": softcap, "sinks": s_aux, "dropout": dropout}
    if attention_mask is not None and attention_mask.dim() == 4:
        kind = "mask" if attention_mask.dtype == torch.bool else "bias"
        return attend(q, k, v, **{kind: attention_mask[..., : k.shape[1]]}, **options)[0], None
    options["causal"] = causal
    if sliding_window is not None:
        if not causal:
            raise Error("attention: a sliding window without causal comes with a mask")
        options["left"] = sliding_window - 1
    if cu_seq_lens_q is not None and q.shape[0] == 1:
        return attend(q, k, v, cu_q=cu_seq_lens_q.int(), cu_k=cu_seq_lens_k.int(), **options)[0], None
    if attention_mask is not None:
        return _attend_sequences(q, k, v, attention_mask, options), None
    return attend(q, k, v, **options)[0], None


def _attend_sequences(q, k, v, sequences, options):
    """Puts the tokens that are no padding into one row, sequence after sequence, and their outputs back."""
    batch, time = sequences.shape
    rows = torch.arange(batch, device=sequences.device)[:, None] * time  # no two batch rows share a number
    numbers = (sequences + rows).flatten()
    tokens = (sequences.flatten() >= 0).nonzero().squeeze(1)
    numbers = numbers[tokens]
    first = torch.nonzero(torch.diff(numbers)).squeeze(1) + 1
    ends = torch.tensor([0, len(tokens)], device=first.device)
    cu = torch.cat((ends[:1], first, ends[1:])).int()
    packed = (x.flatten(0, 1).index_select(0, tokens).unsqueeze(0) for x in (q, k, v))
    out, _ = attend(*packed, cu_q=cu, cu_k=cu, **options)
    result = out.new_zeros((batch * time, *out.shape[2:]))
    return result.index_copy(0, tokens, out.squeeze(0)).unflatten(0, (batch, time))

#!/usr/bin/env python3
"""Training steps of one transformer in PyTorch, a few at a time: the other side of torch_training.py, which starts it.

    torch_transformer.py SETTINGS FILE

Reads the weights and the batch that tilegrad wrote to FILE. Then does as many steps as each line of standard input
says, and answers each with a line of JSON.
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

LEARNING_RATE = 1e-3
DTYPES = {"F32": torch.float32, "I32": torch.int32}


class Block(nn.Module):
    """Queries, keys and values come from one product, which suits PyTorch."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):  # (B, T, C)
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, T, H, D)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        x = x + self.output(attended.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self, settings):
        super().__init__()
        width = settings["width"]
        self.checkpoint = settings["checkpoint"] == "block"
        self.tokens = nn.Embedding(settings["vocabulary"], width)
        self.positions = nn.Embedding(settings["context"], width)
        self.blocks = nn.ModuleList(Block(width, settings["heads"]) for _ in range(settings["layers"]))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens, targets):  # (B, T)
        x = self.tokens(tokens) + self.positions.weight
        *others, last = self.blocks
        for block in others:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoint else block(x)
        x = last(x)  # backward begins there: a checkpoint would save nothing
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def read_tensors(path):
    """The tensors of a safetensors file by name."""
    tensors = {}
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            flat = torch.frombuffer(bytearray(file.read(end - begin)), dtype=DTYPES[entry["dtype"]])
            tensors[name] = flat.reshape(entry["shape"]).clone()  # at an address that suits vectors
    return tensors


def weights_of(tensors, layers):
    """tilegrad's parameters under the names of this model."""
    weights = dict(tensors)
    for layer in range(layers):
        block = f"blocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"{block}.attention.{part}.{kind}") for part in ("query", "key", "value")]
            weights[f"{block}.qkv.{kind}"] = torch.cat(parts)
            weights[f"{block}.output.{kind}"] = weights.pop(f"{block}.attention.output.{kind}")
            for part in ("up", "down"):
                weights[f"{block}.{part}.{kind}"] = weights.pop(f"{block}.mlp.{part}.{kind}")
    return weights


def build(settings, tensors):
    with torch.device("meta"):
        model = Transformer(settings)
    model.load_state_dict(weights_of(tensors, settings["layers"]), assign=True)
    return model


def make_optimizer(model):
    """AdamW with the settings of nn/adamw.h, which decays matrices alone."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.99), eps=1e-8, fused=True)


def answer(**values):
    print(json.dumps(values), flush=True)


def main():
    settings, path = json.loads(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(settings["threads"])
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tensors = read_tensors(path)
    tokens, targets = (tensors.pop(f"batch.{name}").long() for name in ("tokens", "targets"))
    model = build(settings, tensors)
    tensors.clear()
    optimizer = make_optimizer(model)
    loss_of = torch.compile(model) if settings["compile"] else model

    def step():
        loss = loss_of(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def timed():
        start = time.perf_counter()
        loss = step()
        return loss, 1e3 * (time.perf_counter() - start)

    answer(parameters=sum(p.numel() for p in model.parameters()), torch=torch.__version__,
           simd=torch.backends.cpu.get_cpu_capability(), empty_rss=empty)
    for line in sys.stdin:
        losses, ms = zip(*(timed() for _ in range(int(line))))
        answer(losses=losses, ms=ms)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Times a training step of a small transformers model with "eager" and with "tilegrad" attention; measures their memory.

    pip install '.[transformers]'
    bench/peers/training_step.py --model gemma2

Each implementation runs in a process of its own, and so does the model without attention ("none": the queries are
passed on). The memory of attention is how far a step's peak exceeds the peak of that one.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

SPECIAL = {"gemma2": {"sliding_window": 1024, "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 64},
           "gpt_oss": {"sliding_window": 128, "num_local_experts": 2, "num_experts_per_tok": 1},
           "granite_swa": {"sliding_window": 128}, "mistral": {"sliding_window": 1024}, "llama": {},
           "starcoder2": {"sliding_window": 1024}}


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=SPECIAL, default="gemma2")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="the fastest counts (default: %(default)s)")
    parser.add_argument("--child", choices=("eager", "sdpa", "tilegrad", "none"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options):
    """Seconds of the fastest step, and bytes by which steps raise the peak."""
    import torch
    import transformers

    import tilegrad.transformers

    tilegrad.transformers.register()
    if options.child == "none":  # all but attention
        transformers.AttentionInterface.register("none", lambda module, q, k, v, mask, **_: (q.transpose(1, 2), None))
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    width = options.heads * options.dim
    config = transformers.AutoConfig.for_model(
        options.model, vocab_size=256, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=options.layers,
        num_attention_heads=options.heads, num_key_value_heads=options.heads, head_dim=options.dim,
        max_position_embeddings=options.length, pad_token_id=0, bos_token_id=None, eos_token_id=None, use_cache=False,
        **SPECIAL[options.model])
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.set_attn_implementation(options.child)
    ids = torch.randint(0, 256, (1, options.length))

    def step():
        start = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()
        return time.perf_counter() - start

    before = peak()
    seconds = min(step() for _ in range(options.steps))
    return {"seconds": seconds, "bytes": peak() - before}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(options, implementation):
    arguments = [x for name in ("model", "length", "layers", "heads", "dim", "threads", "steps")
                 for x in (f"--{name}", str(getattr(options, name)))]
    child = subprocess.run([sys.executable, __file__, "--child", implementation, *arguments], capture_output=True, text=True)
    if child.returncode != 0:
        sys.exit(child.stderr)
    return json.loads(child.stdout.splitlines()[-1])


def main():
    options = parse_options()
    if options.child:
        print(json.dumps(measure(options)))
        return
    results = {name: run(options, name) for name in ("none", "eager", "tilegrad")}
    print(f"{options.model}, T {options.length}, {options.layers} layers, {options.heads} heads, D {options.dim}, "
          f"{options.threads} threads")
    rest = results["none"]["bytes"]
    for name, result in results.items():
        print(f"{name:<9} {result['seconds']:8.3f} s per step   peak {result['bytes'] / 2**20:8.0f} MiB   "
              f"of attention {(result['bytes'] - rest) / 2**20:8.0f} MiB")
    eager, ours = results["eager"], results["tilegrad"]
    print(f"eager / tilegrad: time {eager['seconds'] / ours['seconds']:.1f}, memory of attention "
          f"{(eager['bytes'] - rest) / max(ours['bytes'] - rest, 1):.1f}")


if __name__ == "__main__":
    main()

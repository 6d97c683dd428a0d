"""Random problems, the options with which every door is tried, and who else may run during a call."""

import sys
import threading

import numpy as np


def random(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tensors(batch=2, tq=37, tk=45, heads=4, kv_heads=2, dim=8, dim_v=6, dtype=np.float64):
    return (random(1, batch, tq, heads, dim, dtype=dtype), random(2, batch, tk, kv_heads, dim, dtype=dtype),
            random(3, batch, tk, kv_heads, dim_v, dtype=dtype))


def some_mask(*shape):
    return np.random.default_rng(9).random(shape) < 0.7


OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "causal, top left": {"causal": True, "align": "top_left"},
    "window": {"window": (7, 3)},
    "one-sided window": {"window": (None, 2)},
    "causal window": {"causal": True, "window": (5, 0)},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 1.5},
    "bias": {"bias": random(4, 2, 4, 37, 45)},
    "bias for all batch rows": {"bias": random(4, 1, 4, 37, 45)},
    "bias for all queries": {"bias": random(4, 2, 1, 1, 45)},
    "mask": {"mask": some_mask(2, 1, 37, 45)},
    "mask for all queries": {"mask": some_mask(2, 1, 1, 45)},
    "sinks": {"sinks": random(5, 4)},
    "alibi": {"alibi_slopes": np.array([0.5, 0.25, 0.125, 0.0625]), "causal": True},
    "k_lengths": {"k_lengths": [45, 11], "causal": True},
    "all at once": {"causal": True, "window": (20, 0), "softcap": 2.0, "sinks": random(5, 4), "scale": 0.5,
                    "bias": random(4, 1, 1, 37, 45), "alibi_slopes": np.array([0.5, 0.25, 0.125, 0.0625])},
}
PACKED = {"cu_seqlens_q": [0, 5, 5, 30, 37], "cu_seqlens_k": [0, 8, 10, 40, 45]}


def interpreter_is_free_during(call, times=200):
    """Whether another thread of Python gets its turn while `call` runs, one of `times` times. Nothing else lets it:
    with so long an interval nobody is asked to give the interpreter away."""
    others_turn, worker_ended = threading.Event(), []
    begun = threading.Lock()
    begun.acquire()

    def work():
        begun.release()
        for _ in range(times):
            call()
            if others_turn.is_set():
                return
        worker_ended.append(True)

    call()  # what is imported and started once lets others run as well
    interval = sys.getswitchinterval()
    worker = threading.Thread(target=work)
    sys.setswitchinterval(1000)
    try:
        worker.start()
        begun.acquire()
        free = not worker_ended
        others_turn.set()
        worker.join()
    finally:
        sys.setswitchinterval(interval)
    return free

"""What the package stands on: it takes NumPy arrays, those of the results included."""

from typing import Optional

import numpy as np

Array = np.ndarray

class Error(RuntimeError):
    """A call that makes no sense, or that the machine cannot serve. The message is one line."""

class AttentionOptions:
    def __init__(
        self,
        causal: bool,
        align: str,
        left: Optional[int],
        right: Optional[int],
        scale: Optional[float],
        softcap: Optional[float],
        dropout: float,
        seed: int,
    ) -> None: ...

def attention(
    kernel: str, options: AttentionOptions, out: Array, lse: Array, operands: tuple[Optional[Array], ...]
) -> None: ...
def attention_backward(
    kernel: str,
    options: AttentionOptions,
    gradients: tuple[Optional[Array], ...],
    dout: Array,
    dlse: Optional[Array],
    out: Array,
    lse: Array,
    operands: tuple[Optional[Array], ...],
) -> None: ...
def threads() -> int:
    """Number of threads that kernels use; at first the number of processors, or OMP_NUM_THREADS."""

def set_threads(count: int) -> None:
    """Lets kernels use `count` threads, at least one. The results have the same bits for every number."""

def run_on_openmp(parallel: int, thread_number: int, max_threads: int) -> None:
    """Hands all tasks to the OpenMP runtime with these addresses: GOMP_parallel and two functions of omp.h."""

def run_on_own_threads() -> None: ...

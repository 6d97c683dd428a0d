"""Attention on PyTorch's own threads.

PyTorch's idle threads look for work for a while before they sleep. A second team beside them would find the processors
taken, so all tasks go to the OpenMP runtime that PyTorch's library has loaded, which may be a file of its own that
nothing else could link. A task's result does not depend on the thread that computes it, so the bits stay.
"""

import ctypes
import pathlib

import torch

from tilegrad import _core

_FUNCTIONS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_max_threads")


def use_torch_threads() -> bool:
    """False if PyTorch has no OpenMP: then tilegrad keeps its own threads."""
    library = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not torch.backends.openmp.is_available() or not library.exists():
        return False
    try:
        loaded = ctypes.CDLL(str(library))  # a symbol is looked for in the library and in those that it has loaded
        addresses = [ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value for name in _FUNCTIONS]
    except (OSError, AttributeError):
        return False
    _core.run_on_openmp(*addresses)
    return True

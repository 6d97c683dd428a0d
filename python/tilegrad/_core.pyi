"""What the package stands on: it takes NumPy arrays, those of the results included, and tensors (read_tensors_of)."""

from typing import Any, Optional

Array = Any  # a NumPy array or, for attention, a tensor of PyTorch

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
    kernel: str,
    options: AttentionOptions,
    out: Array,
    lse: Array,
    operands: tuple[Optional[Array], ...],
    heads_first: bool = False,
) -> None:
    """Writes to out and lse. With heads_first, q, k, v and out are (B, H, T, D)."""


def attention_backward(
    kernel: str,
    options: AttentionOptions,
    gradients: tuple[Optional[Array], ...],
    dout: Array,
    dlse: Optional[Array],
    out: Array,
    lse: Array,
    operands: tuple[Optional[Array], ...],
    heads_first: bool = False,
) -> None:
    """Writes to the gradients of q, k, v, bias and sinks, None for one that is not wanted."""

def read_tensors_of(type: type, exchange_api: object) -> bool:
    """Lets attention read tensors of this type by the capsule that they have as `__dlpack_c_exchange_api__`. False if
    it is not one, or of a version that is not known."""

class Transformer:
    """A model. Tokens are contiguous int32 arrays; the arrays that it returns are new ones."""

    def __init__(self, settings: str, vocabulary: int) -> None:
        """`settings` is JSON with the keys of config.json."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def parameter_count(self) -> int: ...
    @property
    def kv_bytes_per_token(self) -> int: ...
    def logits(self, tokens: Array) -> Array: ...
    def gradients(self, tokens: Array, targets: Array, step: int) -> tuple[float, dict[str, Array]]: ...
    def generate(self, prompt: Array, count: int, temperature: float, top_k: int, seed: int) -> list[int]: ...
    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, arrays: list[tuple[str, Array]]) -> None: ...
    def save(self, path: str) -> None: ...
    def load(self, path: str) -> None: ...

class Codec:
    """The tokens of a run, of which it takes the config.json."""

    def __init__(self, config: str) -> None: ...
    @property
    def vocabulary(self) -> int: ...
    def encode(self, text: bytes) -> list[int]: ...
    def decode(self, tokens: list[int]) -> bytes: ...
    def default_prompt(self) -> list[int]: ...

def run_program(arguments: list[str]) -> tuple[int, bytes, bytes, int]:
    """`tilegrad <arguments>` in this process: the exit code, what went to standard output and error, and the signal
    that asked training to stop, or 0."""

def settings() -> list[tuple[str, str, str]]:
    """Name (as in config.json), group and help of every setting of a run."""

def tasks() -> list[str]: ...
def threads() -> int:
    """Number of threads that kernels use; at first the number of processors, or OMP_NUM_THREADS."""

def set_threads(count: int) -> None:
    """Lets kernels use `count` threads, at least one. The results have the same bits for every number."""

def run_on_openmp(parallel: int, thread_number: int, max_threads: int) -> None:
    """Hands all tasks to the OpenMP runtime with these addresses: GOMP_parallel and two functions of omp.h."""

def run_on_own_threads() -> None: ...

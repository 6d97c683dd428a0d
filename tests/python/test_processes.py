"""Threads, forks, lifetimes, and the program beside the module."""

import gc
import json
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

import tilegrad
from problems import PACKED, interpreter_is_free_during, random, some_mask, tensors
from program import needs_program, run


@pytest.fixture(autouse=True)
def threads_as_before():
    before = tilegrad.threads()
    yield
    tilegrad.set_threads(before)


def big_problem():
    return tensors(batch=1, tq=300, tk=300, dim=16, dim_v=16, dtype=np.float32)


def test_the_bits_do_not_depend_on_threads():
    q, k, v = big_problem()
    results = []
    for count in (1, 2, 5):
        tilegrad.set_threads(count)
        assert tilegrad.threads() == count
        out, lse = tilegrad.attention(q, k, v, causal=True, return_lse=True)
        results.append((out, lse, *tilegrad.attention_backward(out, q, k, v, out, lse, causal=True)[:3]))
    for other in results[1:]:
        assert all((a == b).all() for a, b in zip(results[0], other))


def test_many_threads_may_call_at_once():
    q, k, v = big_problem()
    expected = tilegrad.attention(q, k, v)
    wrong = []

    def work():
        for _ in range(10):
            if not (tilegrad.attention(q, k, v) == expected).all():
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_the_interpreter_is_free_while_attention_computes():
    q, k, v = big_problem()
    out, lse = tilegrad.attention(q, k, v, return_lse=True)
    assert interpreter_is_free_during(lambda: tilegrad.attention(q, k, v))
    assert interpreter_is_free_during(lambda: tilegrad.attention_backward(out, q, k, v, out, lse))


def test_the_interpreter_is_not_free_during_a_call_that_keeps_it():
    assert not interpreter_is_free_during(lambda: sum(range(100)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_was_forked_after_use_computes_as_well():
    q, k, v = big_problem()
    tilegrad.set_threads(2)
    expected = tilegrad.attention(q, k, v)
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(60)
        os._exit(0 if (tilegrad.attention(q, k, v) == expected).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_results_outlive_their_inputs_and_inputs_are_let_go():
    q, k, v = tensors()
    before = [sys.getrefcount(x) for x in (q, k, v)]
    out, lse = tilegrad.attention(q, k, v, return_lse=True)
    tilegrad.attention_backward(out, q, k, v, out, lse)
    with pytest.raises(tilegrad.Error):
        tilegrad.attention(q, k, v[:1])
    assert [sys.getrefcount(x) for x in (q, k, v)] == before
    copy = out.copy()
    del q, k, v
    gc.collect()
    assert (out == copy).all()


def test_memory_cannot_be_taken_away_while_it_is_read():
    memory = bytearray(tensors()[0].tobytes())
    q = np.frombuffer(memory).reshape(2, 37, 4, 8)
    _, k, v = tensors()
    expected = tilegrad.attention(q.copy(), k, v)
    assert (tilegrad.attention(q, k, v) == expected).all()
    del q
    memory.clear()  # nobody holds it any more, or this would be a BufferError


def test_importing_needs_neither_numpy_nor_torch():
    code = "import sys, tilegrad; print(sorted({'numpy', 'torch', 'transformers', 'tilegrad._train'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_error_calls_itself_by_its_public_name():
    assert f"{tilegrad.Error.__module__}.{tilegrad.Error.__qualname__}" == "tilegrad.Error"


# --- The program --------------------------------------------------------------------------------------------


NAMES = {"float32": "F32", "float64": "F64", "int32": "I32", "bool": "BOOL"}


def write_safetensors(path, arrays):
    header, data = {}, b""
    for name, x in arrays.items():
        content = np.ascontiguousarray(x).tobytes()
        header[name] = {"dtype": NAMES[x.dtype.name], "shape": x.shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    data, types = content[8 + size :], {value: key for key, value in NAMES.items()}
    return {name: np.frombuffer(data[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in json.loads(content[8 : 8 + size]).items() if name != "__metadata__"}


@needs_program
@pytest.mark.parametrize("kernel", ["flash", "naive"])
@pytest.mark.parametrize(
    "operands, options, arguments",
    [
        ({}, {}, []),
        ({"bias": random(4, 1, 4, 37, 45), "sinks": random(5, 4), "mask": some_mask(2, 1, 37, 45)},
         {"causal": True, "window": (9, 0), "softcap": 2.0, "scale": 0.2, "align": "top_left"},
         ["--causal", "--window-left=9", "--softcap=2", "--scale=0.2", "--align=top_left"]),
        ({"alibi": np.array([0.5, 0.25, 0.125, 0.0625])}, {"dropout": 0.3, "seed": 7}, ["--dropout=0.3", "--seed=7"]),
        ({"cu_q": np.array(PACKED["cu_seqlens_q"], np.int32), "cu_k": np.array(PACKED["cu_seqlens_k"], np.int32)}, {}, []),
    ],
    ids=["plain", "many options", "dropout", "packed"],
)
def test_the_bits_are_those_of_the_program(tmp_path, operands, options, arguments, kernel):
    q, k, v = tensors(batch=1 if "cu_q" in operands else 2, dtype=np.float32)
    operands = {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in operands.items()}
    dout, dlse = random(6, *q.shape[:3], v.shape[3], dtype=np.float32), random(7, q.shape[0], 4, 37, dtype=np.float32)
    write_safetensors(tmp_path / "in", {"q": q, "k": k, "v": v, "dout": dout, "dlse": dlse} | operands)
    run("attention", "--in", tmp_path / "in", "--out", tmp_path / "out", "--kernel", kernel, *arguments)
    expected = read_safetensors(tmp_path / "out")

    ours = {"alibi": "alibi_slopes", "cu_q": "cu_seqlens_q", "cu_k": "cu_seqlens_k"}
    options = options | {ours.get(name, name): x for name, x in operands.items()} | {"kernel": kernel}
    out, lse = tilegrad.attention(q, k, v, return_lse=True, **options)
    dq, dk, dv, extra = tilegrad.attention_backward(dout, q, k, v, out, lse, dlse=dlse, **options)
    results = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv} | {f"d{name}": x for name, x in extra.items()}
    assert results.keys() == expected.keys()
    for name, x in results.items():
        assert x.tobytes() == expected[name].tobytes(), name

"""Arrays of any library as NumPy arrays on the same memory, and back. NumPy is imported when it is needed."""

import sys

from tilegrad._core import Error

FLOATS = ("float32", "float64", "bfloat16", "float16")


def as_numpy(array, name, dtypes=FLOATS):
    """`array` as a NumPy array on the same memory, None as None. bf16, which NumPy does not have, comes as uint16."""
    if array is None:
        return None
    import numpy as np

    # The usual case by itself: the names of types, which errors need, take longer than a small problem.
    if type(array) is np.ndarray and dtypes is FLOATS and array.dtype.char in "fd" and array.dtype.isnative:
        return array
    if _is_torch(array):
        _check_dtype(name, str(array.dtype).removeprefix("torch."), dtypes)
        return _from_torch(array, name)
    if not isinstance(array, np.ndarray):
        array = _from_dlpack(array, name)
    if isinstance(array, np.ma.MaskedArray):
        raise Error(f"attention: {name} is a masked array, whose mask would be lost")
    _check_dtype(name, array.dtype.name if array.dtype.isnative else array.dtype.str, dtypes)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def like(array, result):
    """A result, bf16 as uint16, as an array of the library and type that `array` has, on the same memory."""
    import numpy as np

    if _is_torch(array):
        torch = sys.modules["torch"]
        tensor = torch.from_numpy(result)
        return tensor.view(torch.bfloat16) if result.dtype == np.uint16 else tensor
    if isinstance(array, np.ndarray):
        return result.view(array.dtype) if result.dtype == np.uint16 else result
    namespace = getattr(array, "__array_namespace__", None)
    return namespace().from_dlpack(result) if namespace else result


def _is_torch(array):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def _check_dtype(name, dtype, dtypes):
    if dtype not in dtypes:
        raise Error(f"attention: {name} is {dtype}, not {' or '.join(dtypes)}")


def _from_torch(tensor, name):
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise Error(f"attention: {name} is on {tensor.device}, not on the CPU")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise Error(f"attention: {name} requires a gradient, which would be lost; tilegrad.torch keeps it")
    try:
        tensor = tensor.detach()
        return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (TypeError, RuntimeError) as error:
        raise Error(f"attention: {name} has no memory to read: {_first_line(error)}") from None


def _from_dlpack(array, name):
    import numpy as np

    if not hasattr(array, "__dlpack__"):
        raise Error(f"attention: {name} is of type {type(array).__name__}, not an array")
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise Error(f"attention: {name} cannot be read by DLPack: {_first_line(error)}") from None


def _first_line(error):
    return str(error).strip().split("\n")[0]

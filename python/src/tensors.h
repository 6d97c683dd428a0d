#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <string_view>

/// PyTorch's tensors as they lie in memory, by the C functions that DLPack 1.3 has for this (DLPackExchangeAPI in
/// dlpack.h). A tensor need not become a NumPy array first, which takes long beside a problem of a few dozen tokens.
namespace tilegrad::python {

/// What `object` is, if it is a tensor and tensors can be read. Its pointers lead into the tensor, so they are valid
/// while that exists and nobody resizes it. Throws Error, which calls the tensor `name`, if it has no memory to read.
std::optional<nanobind::dlpack::dltensor> tensor_of(nanobind::handle object, std::string_view name);

/// Adds read_tensors_of, which says what a tensor is.
void add_tensors(nanobind::module_& module);

}  // namespace tilegrad::python

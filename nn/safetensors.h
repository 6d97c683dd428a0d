#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "tilegrad/autograd/tensor.h"

/// The safetensors file format: 8 bytes little-endian header length, a JSON header
///   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {"key": "value"}}
/// then the tensors' bytes without gaps. Dtypes F32, F64, BF16, F16, I32, BOOL (as u8).
namespace tilegrad::nn {

struct Safetensors {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;

  /// The tensor of that name. Throws, naming it, if it is missing or has another shape or dtype.
  const Tensor& at(const std::string& name, const Shape& shape, Dtype dtype) const;
};

/// Trusts nothing in the file: a missing, truncated, oversized, overlapping, gapped or malformed one is an
/// Error "<path>: what is wrong".
Safetensors load_safetensors(const std::filesystem::path& path);
/// Replaces the file atomically.
void save_safetensors(const std::filesystem::path& path, const Safetensors& content);

}  // namespace tilegrad::nn

#pragma once

#include <filesystem>
#include <vector>

#include "tilegrad/nn/module.h"
#include "tilegrad/nn/safetensors.h"

/// A model's parameters as named tensors, to save and to load them.
namespace tilegrad::nn {

/// Copies the elements of a tensor of the same shape and floating-point dtype.
void copy_elements(Tensor& to, const Tensor& from);

/// Whether no element of a parameter is NaN or infinite.
bool all_finite(const std::vector<NamedParameter>& parameters);

/// Adds the parameters to `content` by name, sharing memory.
void store_parameters(Safetensors& content, const std::vector<NamedParameter>& parameters);

/// Copies all tensors of `content` into the parameters. Throws, leaving the parameters as they were, unless
/// names, shapes and dtypes match exactly.
void load_parameters(const Safetensors& content, const std::vector<NamedParameter>& parameters);

/// All parameters of a module into a safetensors file, which is replaced atomically.
template <class M>
void save(const std::filesystem::path& path, M& module) {
  Safetensors content;
  store_parameters(content, parameters(module));
  save_safetensors(path, content);
}

/// And back, into a module with the same parameters. Throws "<path>: what is wrong", leaving the module as it
/// was, unless names, shapes and dtypes match exactly.
template <class M>
void load(const std::filesystem::path& path, M& module) {
  const Safetensors content = load_safetensors(path);
  try {
    load_parameters(content, parameters(module));
  } catch (const Error& error) {
    fail("{}: {}", path.string(), error.what());
  }
}

}  // namespace tilegrad::nn

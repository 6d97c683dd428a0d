// A safetensors file, of which nothing is trusted. What can be read can be written and read again.
#include "tests/fuzz/target.h"
#include "tilegrad/base/file.h"
#include "tilegrad/nn/safetensors.h"

void tilegrad::fuzz::fuzz(std::string_view input) {
  const std::filesystem::path file = scratch_folder() / "in", copy = scratch_folder() / "copy";
  write_file(file, input);
  const nn::Safetensors content = nn::load_safetensors(file);
  nn::save_safetensors(copy, content);
  const nn::Safetensors again = nn::load_safetensors(copy);
  expect(again.metadata == content.metadata, "metadata change when they are saved");
  expect(again.tensors.size() == content.tensors.size(), "tensors are lost when they are saved");
  for (const auto& [name, tensor] : content.tensors) {
    const Tensor& other = again.at(name, tensor.shape(), tensor.dtype());
    const auto same = [](double a, double b) { return a == b || (a != a && b != b); };
    for (Index i = 0; i < tensor.size(); ++i) {
      expect(same(tensor.at(i), other.at(i)), "elements change when they are saved");
    }
  }
}

#include "tests/nn/tiny.h"
#include "tests/temporary_folder.h"
#include "tilegrad/nn/layers.h"
#include "tilegrad/nn/weights.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

// A list of parameters and a list of layers.
struct Lists {
  std::vector<Parameter> scales;
  std::vector<nn::Linear> layers;

  explicit Lists(std::uint64_t seed) {
    for (std::uint64_t i = 0; i < 2; ++i) {
      scales.emplace_back(random({3}, seed + i, Dtype::f32));
      layers.emplace_back(3, 3, true, 1.0, Dtype::f32, RandomKey{seed + 2 + i});
    }
  }
  void visit(auto&& f) {
    f("scales", scales);
    f("layers", layers);
  }
};

}  // namespace

TEST_CASE("module: a list of parameters is visited as a list of layers is") {
  Lists lists(1);
  std::vector<std::string> names;
  for (const nn::NamedParameter& p : nn::parameters(lists)) names.push_back(p.name);
  CHECK(names == std::vector<std::string>{"scales.0", "scales.1", "layers.0.weight", "layers.0.bias",
                                          "layers.1.weight", "layers.1.bias"});
}

TEST_CASE("save, load: a module comes back as it was") {
  const TemporaryFolder folder;
  Lists saved(1), loaded(9);
  nn::save(folder / "m.safetensors", saved);
  nn::load(folder / "m.safetensors", loaded);
  const auto a = nn::parameters(saved), b = nn::parameters(loaded);
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK(distance(a[i].parameter->value(), b[i].parameter->value()) == 0);
}

TEST_CASE("load: what does not fit is an error that names the file, and the module stays as it was") {
  const TemporaryFolder folder;
  const auto path = folder / "m.safetensors";
  Lists saved(1), other(9);
  saved.scales.pop_back();
  nn::save(path, saved);
  const double before = other.scales[0].value().at(0);
  CHECK(message_of([&] { nn::load(path, other); }) == path + ": tensor `scales.1` is missing");
  CHECK(other.scales[0].value().at(0) == before);
}

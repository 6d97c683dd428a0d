#include "transformer.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/generate.h"
#include "tilegrad/nn/weights.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::python {

namespace nb = nanobind;

namespace {

// The package sees to it that arrays are contiguous and of these types.
using Tokens = nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Prompt = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Weights = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

template <class Array>
std::span<const std::int32_t> elements(const Array& array) {
  return {array.data(), array.size()};
}

Tensor tensor_of(const Tokens& tokens) {
  const Shape shape = {static_cast<Index>(tokens.shape(0)), static_cast<Index>(tokens.shape(1))};
  return Tensor::from<std::int32_t>(shape, elements(tokens));
}

Tensor tensor_of(const std::string& name, const Weights& array) {
  check(array.ndim() <= Shape::kMaxRank, "load_state_dict: `{}` has {} axes", name, array.ndim());
  std::array<Index, Shape::kMaxRank> dims{};
  for (std::size_t i = 0; i < array.ndim(); ++i) dims[i] = static_cast<Index>(array.shape(i));
  const Shape shape(std::span<const Index>(dims.data(), array.ndim()));
  const auto copied = [&]<class T>() {
    return Tensor::from<T>(shape, std::span<const T>(static_cast<const T*>(array.data()), array.size()));
  };
  if (array.dtype() == nb::dtype<float>()) return copied.operator()<float>();
  check(array.dtype() == nb::dtype<double>(), "load_state_dict: `{}` is neither float32 nor float64", name);
  return copied.operator()<double>();
}

// As a NumPy array on the same memory, which lives as long as the array.
nb::object numpy_of(Tensor tensor) {
  auto owner = std::make_unique<Tensor>(std::move(tensor));
  Tensor& kept = *owner;
  const nb::capsule release(owner.release(), [](void* x) noexcept { delete static_cast<Tensor*>(x); });
  std::vector<std::size_t> shape;
  for (int i = 0; i < kept.rank(); ++i) shape.push_back(static_cast<std::size_t>(kept.dim(i)));
  return with_float_type("numpy", kept.dtype(), [&]<class T>() {
    const nb::ndarray<nb::numpy, T> array(kept.mut<T>().data(), shape.size(), shape.data(), release);
    return nb::cast(array);
  });
}

nb::dict numpy_of(NamedTensors tensors) {
  nb::dict arrays;
  for (auto& [name, tensor] : tensors) arrays[name.c_str()] = numpy_of(std::move(tensor));
  return arrays;
}

train::RunConfig config_of(const std::string& settings) {
  train::RunConfig config;
  train::settings_from_json(settings, "Transformer", config);
  return config;
}

// A budget needs measurements of a batch, which only training has.
Schedule schedule_of(const train::RunConfig& config) {
  check(!std::holds_alternative<train::MemoryBudget>(config.checkpoint),
        "Transformer: checkpoint `{}` is planned by train() alone", train::to_string(config.checkpoint));
  return train::schedule_of(config.checkpoint, config.model.layers);
}

// A model, one call at a time; no call needs the interpreter while it computes.
class Transformer {
 public:
  // `settings` is JSON, with the keys of config.json; what it lacks has its default.
  Transformer(const std::string& settings, Index vocabulary)
      : config_(config_of(settings)),
        model_(config_.model_for(vocabulary), RandomKey{config_.seed}.fold(train::kWeights)) {
    model_.schedule = schedule_of(config_);
  }

  Index vocabulary() const { return model_.config.vocabulary; }
  Index parameter_count() const { return model_.config.parameter_count(); }
  Index kv_bytes_per_token() const { return model_.config.kv_bytes_per_token(); }

  nb::object logits(const Tokens& tokens) {
    return numpy_of(alone([&] { return model_(tensor_of(tokens), nn::ForwardOptions{}).value(); }));
  }

  nb::tuple gradients(const Tokens& tokens, const Tokens& targets, std::uint64_t step) {
    auto [loss, gradients] = alone([&] { return loss_and_gradients(tokens, targets, step); });
    return nb::make_tuple(loss, numpy_of(std::move(gradients)));
  }

  std::vector<std::int32_t> generate(const Prompt& prompt, Index count, double temperature, Index top_k,
                                     std::uint64_t seed) {
    const nn::SamplingOptions options = {
        .temperature = temperature, .top_k = top_k, .key = RandomKey{seed}.fold(train::kSampling)};
    return alone([&] { return nn::generate(model_, elements(prompt), count, options); });
  }

  nb::dict state_dict() {
    return numpy_of(alone([&] {
      NamedTensors values;
      for (const auto& p : nn::parameters(model_)) values.emplace_back(p.name, p.parameter->value().clone());
      return values;
    }));
  }

  void load_state_dict(const std::vector<std::pair<std::string, Weights>>& arrays) {
    nn::Safetensors content;
    for (const auto& [name, array] : arrays) content.tensors[name] = tensor_of(name, array);
    alone([&] { nn::load_parameters(content, nn::parameters(model_)); });
  }

  void save(const std::string& path) {
    alone([&] { nn::save(path, model_); });
  }
  void load(const std::string& path) {
    alone([&] { nn::load(path, model_); });
  }

 private:
  template <class F>
  std::invoke_result_t<F> alone(F&& f) {
    const nb::gil_scoped_release unlocked;
    const std::scoped_lock lock(mutex_);
    return f();
  }

  // With the dropout masks that a run of this seed has in the step after `step`.
  std::pair<double, NamedTensors> loss_and_gradients(const Tokens& tokens, const Tokens& targets,
                                                     std::uint64_t step) {
    const auto parameters = nn::parameters(model_);
    nn::zero_grad(parameters);  // of a call that failed
    const RandomKey key = RandomKey{config_.seed}.fold(train::kDropout).fold(step);
    Tape tape;
    const Var loss = model_.loss(tensor_of(tokens), tensor_of(targets), {.training = true, .key = key});
    const double value = loss.value().item();
    tape.backward(loss);
    NamedTensors gradients;
    for (const auto& p : parameters) {
      const Tensor& gradient = p.parameter->grad();
      gradients.emplace_back(p.name, gradient.defined()
                                         ? gradient
                                         : Tensor::zeros(p.parameter->shape(), p.parameter->value().dtype()));
    }
    nn::zero_grad(parameters);
    return {value, std::move(gradients)};
  }

  std::mutex mutex_;
  train::RunConfig config_;
  nn::Transformer model_;
};

// The tokens of the run that has this config.json.
class Codec {
 public:
  explicit Codec(const std::string& config) : codec_(train::make_codec(config_of(config))) {}

  Index vocabulary() const { return codec_->vocabulary(); }
  std::vector<std::int32_t> encode(const nb::bytes& text) const {
    return codec_->encode(std::string(text.c_str(), text.size()));
  }
  nb::bytes decode(const std::vector<std::int32_t>& tokens) const {
    std::string text;
    for (const std::int32_t token : tokens) text += codec_->decode(token);
    return nb::bytes(text.data(), text.size());
  }
  std::vector<std::int32_t> default_prompt() const { return codec_->default_prompt(); }

 private:
  std::unique_ptr<data::Codec> codec_;
};

}  // namespace

void add_transformer(nb::module_& module) {
  nb::class_<Transformer>(module, "Transformer")
      .def(nb::init<const std::string&, Index>(), nb::arg("settings"), nb::arg("vocabulary"))
      .def_prop_ro("vocabulary", &Transformer::vocabulary)
      .def_prop_ro("parameter_count", &Transformer::parameter_count)
      .def_prop_ro("kv_bytes_per_token", &Transformer::kv_bytes_per_token)
      .def("logits", &Transformer::logits, nb::arg("tokens"))
      .def("gradients", &Transformer::gradients, nb::arg("tokens"), nb::arg("targets"), nb::arg("step"))
      .def("generate", &Transformer::generate, nb::arg("prompt"), nb::arg("count"), nb::arg("temperature"),
           nb::arg("top_k"), nb::arg("seed"))
      .def("state_dict", &Transformer::state_dict)
      .def("load_state_dict", &Transformer::load_state_dict, nb::arg("arrays"))
      .def("save", &Transformer::save, nb::arg("path"))
      .def("load", &Transformer::load, nb::arg("path"));
  nb::class_<Codec>(module, "Codec")
      .def(nb::init<const std::string&>(), nb::arg("config"))
      .def_prop_ro("vocabulary", &Codec::vocabulary)
      .def("encode", &Codec::encode, nb::arg("text"))
      .def("decode", &Codec::decode, nb::arg("tokens"))
      .def("default_prompt", &Codec::default_prompt);
}

}  // namespace tilegrad::python

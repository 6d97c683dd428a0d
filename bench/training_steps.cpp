// Training steps of one transformer, a few at a time, for peers/torch_training.py to time beside those of PyTorch.

#include <chrono>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/program.h"
#include "bench/simd_limit.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/nn/adamw.h"
#include "tilegrad/nn/transformer.h"
#include "tilegrad/nn/weights.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/machine_load.h"
#include "tilegrad/train/measure/random_tokens.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"

using namespace tilegrad;
using nlohmann::ordered_json;

namespace {

constexpr double kLearningRate = 1e-3;

struct Settings {
  nn::TransformerConfig model;
  Index batch = 0;
  bool checkpoint = false;  // every block but the last
  int threads = 0;
};

Settings parse_settings(const std::string& text) {
  const auto json = ordered_json::parse(text);
  const auto size = [&](const char* name) { return json.at(name).get<Index>(); };
  const auto checkpoint = json.at("checkpoint").get<std::string>();
  return {.model = {.vocabulary = size("vocabulary"),
                    .context = size("context"),
                    .layers = size("layers"),
                    .width = size("width"),
                    .attention = {.heads = size("heads"), .kv_heads = size("heads")},
                    .bias = true,
                    .recompute =
                        checkpoint == "elementwise" ? nn::Recompute::elementwise : nn::Recompute::nothing},
          .batch = size("batch"),
          .checkpoint = checkpoint == "block",
          .threads = json.at("threads").get<int>()};
}

// Tokens (B, T) for a batch.
Tensor random_batch(const Settings& settings, RandomKey key) {
  return train::random_tokens(settings.batch, settings.model.context, key, settings.model.vocabulary);
}

// Moves biases and the weights of norms apart. They start equal, so that a loss would not tell whether each of them
// has reached its place in the other model.
void scatter_vectors(const std::vector<nn::NamedParameter>& parameters, RandomKey key) {
  constexpr float kSpread = 0.02f;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Tensor value = parameters[i].parameter->value();  // shares memory
    if (value.rank() != 1) continue;
    const Tensor noise = Tensor::normal(value.shape(), Dtype::f32, key.fold(i));
    const auto from = noise.view<float>();
    const auto to = value.mut<float>();
    for (std::size_t at = 0; at < to.size(); ++at) to[at] += kSpread * from[at];
  }
}

class Training {
 public:
  explicit Training(const Settings& settings)
      : model_(settings.model, RandomKey{1}),
        parameters_(nn::parameters(model_)),
        optimizer_(parameters_, {}),
        tokens_(random_batch(settings, RandomKey{2})),
        targets_(random_batch(settings, RandomKey{3})) {
    if (settings.checkpoint) {
      model_.schedule = even_segments(settings.model.layers, settings.model.layers);
    }
    scatter_vectors(parameters_, RandomKey{4});
  }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  Index parameter_count() const { return nn::count(parameters_); }

  // Weights and batch, for the peer to start from.
  void save(const std::filesystem::path& path) const {
    nn::Safetensors content;
    nn::store_parameters(content, parameters_);
    content.tensors.emplace("batch.tokens", tokens_);
    content.tensors.emplace("batch.targets", targets_);
    nn::save_safetensors(path, content);
  }

  // Forward, loss, backward, clipping and AdamW; returns the loss.
  double step() {
    double loss = 0;
    {
      Tape tape;
      const Var mean_loss = model_.loss(tokens_, targets_, {.training = true});
      loss = mean_loss.value().item();
      tape.backward(mean_loss);
    }
    optimizer_.step(kLearningRate);
    nn::zero_grad(parameters_);
    return loss;
  }

 private:
  nn::Transformer model_;
  std::vector<nn::NamedParameter> parameters_;
  nn::AdamW optimizer_;
  Tensor tokens_, targets_;  // (B, T)
};

ordered_json about(const Training& training) {
  return {{"parameters", training.parameter_count()},
          {"processor", processor_name()},
          {"simd", train::simd_target()}};
}

// The peak is measured with every few steps, since another program can lower a single measurement.
ordered_json run(Training& training, int steps) {
  using Clock = std::chrono::steady_clock;
  constexpr int kPeakTimes = 5;
  const train::MachineLoad load;
  ordered_json ms = ordered_json::array(), losses = ordered_json::array();
  memory::reset_peak();
  for (int i = 0; i < steps; ++i) {
    const auto start = Clock::now();
    losses.push_back(training.step());
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  const Index tracked_peak = memory::usage().peak;
  const double others = load.share_of_others().value_or(0);
  double peak_gflops = 0;
  for (int i = 0; i < kPeakTimes; ++i) peak_gflops = highest_fma_gflops<float>();
  return {{"ms", ms},
          {"losses", losses},
          {"tracked_peak", tracked_peak},
          {"others", others},
          {"peak_gflops", peak_gflops}};
}

}  // namespace

// training_steps SETTINGS FILE: builds the model of the JSON object SETTINGS and writes its weights and a batch to FILE.
// Then does as many steps as each line of standard input says, and answers each with a line of JSON.
int main(int argc, char** argv) {
  return bench::guarded([&] {
    bench::limit_simd();
    check(argc == 3, "training_steps: give the settings as JSON, and a file for weights and batch");
    const Settings settings = parse_settings(argv[1]);
    kernels::set_threads(settings.threads);
    Training training(settings);
    training.save(argv[2]);
    bench::answer(about(training));
    for (int steps = 0; std::cin >> steps;) bench::answer(run(training, steps));
  });
}

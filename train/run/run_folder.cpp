#include "tilegrad/train/run/run_folder.h"

#include <charconv>
#include <cmath>

#include "tilegrad/base/file.h"
#include "tilegrad/nn/weights.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeightPrefix = "weights.";

// A number that was written into the metadata of a file.
template <class T>
T metadata_number(const nn::Safetensors& content, const std::string& key) {
  const auto found = content.metadata.find(key);
  check(found != content.metadata.end(), "metadata `{}` is missing", key);
  const std::string& text = found->second;
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size(), "metadata `{}` is `{}`, not a number", key,
        text);
  return value;
}

TrainState read_train_state(const nn::Safetensors& content, const RunConfig& config) {
  TrainState state = {.step = metadata_number<Index>(content, "step"),
                      .loss_sum = metadata_number<double>(content, "loss_sum"),
                      .loss_count = metadata_number<Index>(content, "loss_count")};
  check(state.step >= 0 && state.loss_count >= 0 && std::isfinite(state.loss_sum),
        "step {}, loss_sum {}, loss_count {} cannot be", state.step, state.loss_sum, state.loss_count);
  check(state.step <= config.steps, "is at step {}, the run is to end after {}", state.step, config.steps);
  const auto seed = metadata_number<std::uint64_t>(content, "seed");
  check(seed == config.seed, "belongs to a run with seed {}, config.json says {}", seed, config.seed);
  return state;
}

// Runs f, and says which file an error is about.
template <class F>
void about_file(const fs::path& file, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    fail("{}: {}", file.string(), error.what());
  }
}

}  // namespace

void RunFolder::start(const RunConfig& config) const {
  make_folder(path_);
  std::error_code error;
  for (const fs::path& file : {state_file(), model_file(), memory_file(), profile_file(), ops_file()}) {
    fs::remove(file, error);
    check(!error, "{}: cannot be replaced: {}", file.string(), error.message());
  }
  write_config(config);
}

void RunFolder::write_config(const RunConfig& config) const {
  write_file(config_file(), to_json(config).dump(2) + "\n");
}

RunConfig RunFolder::read_config() const {
  return config_from_json(read_file(config_file()), config_file().string());
}

void RunFolder::save(Trainer& trainer) const {
  const TrainState& state = trainer.state();
  const std::string step = std::to_string(state.step);
  const auto parameters = nn::parameters(trainer.model());
  // The last good save is worth more than weights that nothing can be done with.
  check(nn::all_finite(parameters), "step {}: the weights are no longer finite; they are not saved", step);

  nn::Safetensors content;
  for (const nn::NamedParameter& p : parameters) {
    content.tensors[std::string(kWeightPrefix) + p.name] = p.parameter->value();
  }
  for (const auto& moment : trainer.optimizer().state()) content.tensors[moment.name] = *moment.tensor;
  content.metadata = {{"step", step},
                      {"seed", std::to_string(trainer.config().seed)},
                      {"loss_sum", fmt::format("{:.17g}", state.loss_sum)},
                      {"loss_count", std::to_string(state.loss_count)}};
  nn::save_safetensors(state_file(), content);

  nn::Safetensors model;
  nn::store_parameters(model, parameters);
  model.metadata = {{"step", step}};
  nn::save_safetensors(model_file(), model);
}

void RunFolder::load_state(Trainer& trainer) const {
  const nn::Safetensors content = nn::load_safetensors(state_file());
  about_file(state_file(), [&] {
    const TrainState state = read_train_state(content, trainer.config());
    nn::Safetensors weights;
    for (const auto& [name, tensor] : content.tensors) {
      if (name.starts_with(kWeightPrefix)) weights.tensors[name.substr(kWeightPrefix.size())] = tensor;
    }
    nn::load_parameters(weights, nn::parameters(trainer.model()));
    for (const auto& moment : trainer.optimizer().state()) {
      nn::copy_elements(*moment.tensor,
                        content.at(moment.name, moment.tensor->shape(), moment.tensor->dtype()));
    }
    trainer.set_state(state);
  });
}

void RunFolder::load_model(nn::Transformer& model) const {
  const nn::Safetensors content = nn::load_safetensors(model_file());
  about_file(model_file(), [&] { nn::load_parameters(content, nn::parameters(model)); });
}

}  // namespace tilegrad::train

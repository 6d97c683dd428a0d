#include "tilegrad/train/run/run_folder.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "tilegrad/base/file.h"
#include "tilegrad/nn/weights.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeightPrefix = "weights.";

// A number that was written into the metadata of a file; `otherwise`, if there is one, where it is missing.
template <class T>
T metadata_number(const nn::Safetensors& content, const std::string& key, std::optional<T> otherwise = {}) {
  const auto found = content.metadata.find(key);
  if (found == content.metadata.end() && otherwise) return *otherwise;
  check(found != content.metadata.end(), "metadata `{}` is missing", key);
  const std::string& text = found->second;
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size(), "metadata `{}` is `{}`, not a number", key,
        text);
  return value;
}

// Older programs did not keep it.
EvaluationHistory read_evaluations(const nn::Safetensors& content) {
  EvaluationHistory h;
  const auto read = [&](const char* key, auto& field) {
    field = metadata_number(content, key, std::optional(field));
  };
  read("evaluations", h.count);
  read("val_loss", h.last.loss);
  read("accuracy", h.last.accuracy);
  read("exact", h.last.exact);
  read("best_loss", h.best_loss);
  read("best_step", h.best_step);
  read("since_improvement", h.since_improvement);
  return h;
}

void write_evaluations(nn::Safetensors& content, const EvaluationHistory& h) {
  const auto write = [&](const char* key, double value) {
    content.metadata[key] = fmt::format("{:.17g}", value);
  };
  content.metadata["evaluations"] = std::to_string(h.count);
  write("val_loss", h.last.loss);
  write("accuracy", h.last.accuracy);
  write("exact", h.last.exact);
  write("best_loss", h.best_loss);
  content.metadata["best_step"] = std::to_string(h.best_step);
  content.metadata["since_improvement"] = std::to_string(h.since_improvement);
}

TrainState read_train_state(const nn::Safetensors& content, const RunConfig& config) {
  TrainState state = {.step = metadata_number<Index>(content, "step"),
                      .loss_sum = metadata_number<double>(content, "loss_sum"),
                      .loss_count = metadata_number<Index>(content, "loss_count"),
                      .evaluations = read_evaluations(content)};
  check(state.step >= 0 && state.loss_count >= 0 && std::isfinite(state.loss_sum),
        "step {}, loss_sum {}, loss_count {} are impossible", state.step, state.loss_sum, state.loss_count);
  check(state.step <= config.steps, "is at step {}, but the run ends after {}", state.step, config.steps);
  const auto seed = metadata_number<std::uint64_t>(content, "seed");
  check(seed == config.seed, "belongs to a run with seed {}, config.json says {}", seed, config.seed);
  return state;
}

void write_model(const fs::path& file, Trainer& trainer) {
  nn::Safetensors model;
  nn::store_parameters(model, nn::parameters(trainer.model()));
  model.metadata = {{"step", std::to_string(trainer.state().step)}};
  nn::save_safetensors(file, model);
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
  for (const fs::path& file : {state_file(), model_file(), best_file(), memory_file(), profile_file(),
                               ops_file(), curves_file(), events_folder()}) {
    fs::remove_all(file, error);
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

TrainState RunFolder::read_state(const RunConfig& config) const {
  const nn::Safetensors content = nn::load_safetensors(state_file());
  TrainState state;
  about_file(state_file(), [&] { state = read_train_state(content, config); });
  return state;
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
  for (const auto& part : trainer.optimizer().state()) content.tensors[part.name] = *part.tensor;
  content.metadata = {{"step", step},
                      {"seed", std::to_string(trainer.config().seed)},
                      {"loss_sum", fmt::format("{:.17g}", state.loss_sum)},
                      {"loss_count", std::to_string(state.loss_count)}};
  write_evaluations(content, state.evaluations);
  nn::save_safetensors(state_file(), content);

  write_model(model_file(), trainer);
}

void RunFolder::save_best(Trainer& trainer) const {
  const TrainState& state = trainer.state();
  if (state.evaluations.best_step != state.step || state.step == 0) return;
  std::error_code unknown;
  if (fs::exists(best_file(), unknown)) {
    const nn::Safetensors old = nn::load_safetensors(best_file());
    if (old.metadata.contains("step") && old.metadata.at("step") == std::to_string(state.step)) return;
  }
  write_model(best_file(), trainer);
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
    for (const auto& part : trainer.optimizer().state()) {
      nn::copy_elements(*part.tensor, content.at(part.name, part.tensor->shape(), part.tensor->dtype()));
    }
    trainer.set_state(state);
  });
}

void SavedWeights::load(nn::Transformer& model) const {
  const nn::Safetensors content = nn::load_safetensors(file);
  about_file(file, [&] { nn::load_parameters(content, nn::parameters(model)); });
}

SavedWeights weights_at(const fs::path& path, bool best) {
  std::error_code unknown;
  if (fs::is_regular_file(path, unknown)) {
    check(!best, "best: {} is a file of weights already, not a run", path.string());
    return {.folder = RunFolder(path.parent_path()), .file = path};
  }
  const RunFolder folder(path);
  if (!best) return {.folder = folder, .file = folder.model_file()};
  check(fs::exists(folder.best_file(), unknown), "{}: is missing; train --best keeps it",
        folder.best_file().string());
  return {.folder = folder, .file = folder.best_file()};
}

}  // namespace tilegrad::train

#pragma once

#include <filesystem>

#include "tilegrad/train/run/run_config.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

/// The files of a run.
///   config.json        every setting, complete
///   metrics.jsonl      one object for each step and each evaluation (train/run/metrics.h)
///   memory.jsonl       the live bytes through one step (train/measure/memory_timeline.h)
///   environment.json   the machine, the program and the command (train/measure/environment.h)
///   profile.json       a timeline of some steps, op by op, with --profile (train/measure/profiler.h)
///   ops.json           what each op cost in them (train/measure/profile.h)
///   model.safetensors  the weights, for whoever wants to use them
///   best.safetensors   those of the lowest validation loss, with --best
///   curves.csv         the losses as a table, written at the end (train/report/comparison.h)
///   tensorboard/       event files, with --tensorboard (train/report/event_file.h)
///   state.safetensors  weights, the optimiser's state, and the position: all that --resume needs, so that
///                      a crash between the writes of the two files costs nothing
class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config_file() const { return path_ / "config.json"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path memory_file() const { return path_ / "memory.jsonl"; }
  std::filesystem::path environment_file() const { return path_ / "environment.json"; }
  std::filesystem::path profile_file() const { return path_ / "profile.json"; }
  std::filesystem::path ops_file() const { return path_ / "ops.json"; }
  std::filesystem::path model_file() const { return path_ / "model.safetensors"; }
  std::filesystem::path best_file() const { return path_ / "best.safetensors"; }
  std::filesystem::path curves_file() const { return path_ / "curves.csv"; }
  std::filesystem::path events_folder() const { return path_ / "tensorboard"; }
  std::filesystem::path state_file() const { return path_ / "state.safetensors"; }

  /// Makes the folder, forgets an earlier run in it, and writes config.json. Throws if it is not writable.
  void start(const RunConfig& config) const;

  void write_config(const RunConfig& config) const;
  RunConfig read_config() const;
  /// Where the run stands. Throws Error "<file>: ..." if there is no state, or not of a run with this config.
  TrainState read_state(const RunConfig& config) const;

  /// Writes state and model, each replaced atomically. Throws, leaving them as they were, if a weight is not
  /// finite.
  void save(Trainer& trainer) const;
  /// Puts weights, the optimiser's state and the position back. Throws Error "<file>: ..." if they are not those of such a
  /// model.
  void load_state(Trainer& trainer) const;
  /// Writes best.safetensors, if the last evaluation was the best one and the file is not of that step already.
  void save_best(Trainer& trainer) const;

 private:
  std::filesystem::path path_;
};

/// The weights of a run, and the folder with its settings.
struct SavedWeights {
  RunFolder folder;
  std::filesystem::path file;

  /// Puts them into a model. Throws Error "<file>: ..." if it is another kind of model.
  void load(nn::Transformer& model) const;
};

/// Those that `path` names: a run, which means its model.safetensors or, with `best`, its best.safetensors; or
/// a file of a run. Throws if there is no such file.
SavedWeights weights_at(const std::filesystem::path& path, bool best = false);

}  // namespace tilegrad::train

#pragma once

#include <filesystem>

#include "tilegrad/train/run/run_config.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

/// The files of a run.
///   config.json        every setting, complete
///   metrics.jsonl      one object a step and one an evaluation (train/metrics.h)
///   memory.jsonl       the live bytes through one step (train/memory_timeline.h)
///   environment.json   the machine, the program and the command (train/environment.h)
///   profile.json       a timeline of some steps, op by op, if it is asked for (train/profiler.h)
///   ops.json           what each op cost in them (train/profile.h)
///   model.safetensors  the weights, for whoever wants to use them
///   state.safetensors  weights, moments of the optimiser, and the position: all that --resume needs, so that
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
  std::filesystem::path state_file() const { return path_ / "state.safetensors"; }

  /// Makes the folder, forgets an earlier run in it, and writes config.json. Throws if it is not writable.
  void start(const RunConfig& config) const;

  void write_config(const RunConfig& config) const;
  RunConfig read_config() const;

  /// Writes state and model, each replaced atomically. Throws, leaving them as they were, if a weight is not
  /// finite.
  void save(Trainer& trainer) const;
  /// Puts weights, moments and position back. Throws Error "<file>: ..." if they are not those of such a
  /// model.
  void load_state(Trainer& trainer) const;
  /// The weights alone, from model.safetensors.
  void load_model(nn::Transformer& model) const;

 private:
  std::filesystem::path path_;
};

}  // namespace tilegrad::train

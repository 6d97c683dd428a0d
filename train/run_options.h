#pragma once

#include <CLI/CLI.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "train/run_config.h"

namespace tilegrad::train {

/// The settings of a run as options of a command, in groups. What a setting ends up as is decided in layers:
/// program defaults, then the preset of the task or text, then the file of --config, then the command line.
class RunOptions {
 public:
  /// Adds an option for every setting, and --config.
  explicit RunOptions(CLI::App& command);
  RunOptions(const RunOptions&) = delete;
  RunOptions& operator=(const RunOptions&) = delete;

  /// Reads the file of --config, if given, and settles every layer. Call it after the command line was
  /// parsed.
  RunConfig resolve();

  /// A resumed run: `saved` with those settings that may differ. Throws, naming it, if another one was given.
  RunConfig resolve_resumed(const RunConfig& saved);

  /// Whether the command line or the file of --config says something about it.
  bool given(std::string_view setting) const;

 private:
  template <class T>
  void add(const Setting& setting, T& field);
  void read_config_file();
  void read_item(const CLI::ConfigItem& item);

  CLI::App& command_;
  RunConfig given_;  // only fields whose option was given mean anything
  std::string config_file_;
};

/// Fills in what follows from other settings unless it was given: kv_heads from heads, context from the task,
/// min_lr from lr, the times of warm-up and evaluation from steps, and the output folder.
/// `given(name)` tells whether a setting was.
template <class Given>
void derive_settings(RunConfig& c, Given&& given) {
  if (!given("kv-heads")) c.model.kv_heads = c.model.heads;
  if (!given("context") && !c.is_text()) c.model.context = c.task.context();
  if (!given("min-lr")) c.min_lr = c.lr / 10;
  if (!given("warmup")) c.warmup = std::min(c.warmup, c.steps / 10);
  if (!given("eval-every")) c.eval_every = std::max<Index>(1, std::min(c.eval_every, c.steps / 10));
  if (!given("out")) c.out = "runs/" + std::string(c.data_name());
}

}  // namespace tilegrad::train

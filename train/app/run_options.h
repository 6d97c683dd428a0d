#pragma once

#include <CLI/CLI.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/run/run_config.h"

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

/// The options that a command was given, each with a space before it, but for those in `without`.
std::string given_options(const CLI::App& command, const std::set<std::string_view>& without = {});

}  // namespace tilegrad::train

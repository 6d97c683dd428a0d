#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// The settings of a run as options of a command, in groups. A setting is decided in layers, where later ones win:
/// program defaults, the preset of the task or text, data and model of the run of --from, the file of --config, the
/// command line.
class RunOptions {
 public:
  /// Adds an option for every setting, and --config.
  explicit RunOptions(CLI::App& command);
  RunOptions(const RunOptions&) = delete;
  RunOptions& operator=(const RunOptions&) = delete;

  /// Reads the file of --config, if given, and applies every layer. Call it after the command line has been
  /// parsed. Throws if an option was given that has no effect.
  RunConfig resolve();

  /// The same, whether or not all that was given has an effect.
  RunConfig resolve_any();

  /// Options of the command line that have no effect next to these settings, each with the line that says so.
  std::map<std::string, std::string> without_effect(const RunConfig& config) const;

  /// A resumed run: `saved` with those settings that may differ. Throws, naming it, if another one was given.
  RunConfig resolve_resumed(const RunConfig& saved);

  /// A repeated run: `saved`, read from `file`, in the folder of --out if that was given. Throws if another
  /// setting was given, because a repeated run is the same one.
  RunConfig resolve_repeated(const RunConfig& saved, std::string_view file);

  /// Whether the command line, the file of --config or the run of --from decides it.
  bool given(std::string_view setting) const;
  bool on_command_line(std::string_view setting) const;

 private:
  template <class T>
  void add(const Setting& setting, T& field);
  void read_config_file();
  void read_source();

  CLI::App& command_;
  RunConfig given_;  // only the fields that were given mean anything
  std::set<std::string_view> in_file_, in_source_;
  std::string config_file_;
};

/// The options that a command was given, each with a space before it, except those in `without`.
std::string given_options(const CLI::App& command, const std::set<std::string_view>& without = {});

}  // namespace tilegrad::train

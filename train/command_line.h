#pragma once

#include <CLI/CLI.hpp>
#include <set>
#include <string>
#include <string_view>

#include "train/run_config.h"

namespace tilegrad::train {

/// A word as a shell reads it back.
std::string shell_quoted(const std::string& word);

/// The options, each with a space before it, that RunOptions makes `config` of: those settings that neither
/// the task or text nor another setting implies. `out` and the settings in `without` are left out.
std::string options_of(const RunConfig& config, const std::set<std::string_view>& without = {});

/// The options that a command was given, each with a space before it, but for those in `without`.
std::string given_options(const CLI::App& command, const std::set<std::string_view>& without = {});

}  // namespace tilegrad::train

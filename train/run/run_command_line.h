#pragma once

#include <set>
#include <string>
#include <string_view>

#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// A word as a shell reads it back.
std::string shell_quoted(const std::string& word);

/// The options, each with a space before it, that the command line makes `config` of: those settings that neither
/// the task or text nor another setting implies. `out` and the settings in `without` are left out.
std::string options_of(const RunConfig& config, const std::set<std::string_view>& without = {});

}  // namespace tilegrad::train

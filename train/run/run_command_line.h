#pragma once

#include <set>
#include <string>
#include <string_view>

#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// A word as a shell reads it back.
std::string shell_quoted(const std::string& word);

/// The options from which the command line makes `config`, each with a space before it: the settings that follow
/// neither from the task or text nor from another setting. `out` and the settings in `without` are left out.
std::string options_of(const RunConfig& config, const std::set<std::string_view>& without = {});

}  // namespace tilegrad::train

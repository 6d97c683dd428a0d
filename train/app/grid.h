#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tilegrad/train/app/compare_runs.h"
#include "tilegrad/train/app/run_options.h"

namespace tilegrad::train {

/// --seeds and --vary: what a comparison varies besides attention.
struct GridOptions {
  std::vector<std::uint64_t> seeds = {};
  std::vector<std::string> vary = {};  ///< "lr=0.001,0.003", a setting and its values

  bool empty() const { return seeds.empty() && vary.empty(); }
};

/// Every combination of the values, the seeds last, with a name such as "lr=0.001,seed=2". Each is the config that the
/// command line would give if it had these values, so settings that follow from them do so here. A setting that was
/// given for all belongs to those in which it has an effect, such as --momentum to those with SGD; the others have its
/// default. `command` is the parsed one with the settings of a run (run_options.h); `resolve` makes the config of one, as
/// RunOptions::resolve_any() does. Throws if a setting or a value is not one, if a setting that was given has no effect
/// in any combination, or a varied one in some.
std::vector<Variant> make_grid(const CLI::App& command, const GridOptions& options,
                               const std::function<RunConfig(RunOptions&)>& resolve);

/// The options as they stand on a command line, each with a space before it.
std::string to_string(const GridOptions& options);

}  // namespace tilegrad::train

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tilegrad/train/measure/spread.h"
#include "tilegrad/train/report/loaded_run.h"
#include "tilegrad/train/report/table.h"

namespace tilegrad::train {

/// Runs that differ in nothing but their seed.
struct RunGroup {
  std::string name = {};
  std::vector<const LoadedRun*> runs = {};
};

/// In the order of their first runs. A group's name is what the names of its runs have in common with
/// ",seed=N" taken away or, where that is not one name, the settings in which the groups differ.
/// The runs must outlive the groups.
std::vector<RunGroup> groups_of(const std::vector<LoadedRun>& runs);

/// Whether there are runs that differ in nothing but their seed. The same run twice is no repetition.
bool has_repeats(const std::vector<RunGroup>& groups);

Spread spread_of(const RunGroup& group, const std::function<double(const LoadedRun&)>& value_of);

/// The last validation loss of a run; NaN before the first evaluation.
double final_loss(const LoadedRun& run);

/// One row per group: mean and standard deviation over the seeds.
Table groups_table(const std::vector<RunGroup>& groups);

/// One sentence about the validation losses, which calls a group the best only if no other one is within chance.
std::string finding_of_groups(const std::vector<RunGroup>& groups);

}  // namespace tilegrad::train

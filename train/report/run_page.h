#pragma once

#include <filesystem>
#include <vector>

#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// Lays the runs of some folders side by side: each folder is that of a run, or one of `compare` with a run
/// for each variant. What is damaged or missing becomes a warning, and the rest is shown. Throws if a folder
/// holds no run at all.
Report compare_report(const std::vector<std::filesystem::path>& folders);

}  // namespace tilegrad::train

#pragma once

#include <filesystem>
#include <optional>

#include "tilegrad/base/index.h"

namespace tilegrad {

/// How much of the machine a container may use. Empty: all of it.
struct ControlGroupLimits {
  std::optional<double> processors;  ///< a quota of processor time: 1.5 is that of one and a half processors
  std::optional<Index> memory;       ///< bytes
};

/// The limits of Linux control groups, of versions 1 and 2, for this process: the smallest among those of its own group
/// and of the groups that contain it. `root` stands for /, for tests. A file that is missing or malformed limits
/// nothing.
ControlGroupLimits control_group_limits(const std::filesystem::path& root = "/");

}  // namespace tilegrad

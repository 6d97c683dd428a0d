#pragma once

#include <filesystem>
#include <optional>

#include "tilegrad/base/index.h"

namespace tilegrad {

/// What a container may use of the machine. Empty: all of it.
struct ControlGroupLimits {
  std::optional<double> processors;  ///< a quota of time, in processors: 1.5 is three halves
  std::optional<Index> memory;       ///< bytes
};

/// The limits of Linux control groups, of versions 1 and 2, for this process: the least of its own group's and of
/// those around it. `root` stands for /, for tests. A file that is missing or that makes no sense limits nothing.
ControlGroupLimits control_group_limits(const std::filesystem::path& root = "/");

}  // namespace tilegrad

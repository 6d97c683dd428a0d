#pragma once

#include <string>

#include "tilegrad/train/measure/profile.h"
#include "tilegrad/train/report/table.h"

namespace tilegrad::train {

/// What a call costs on average, one row per op. `name` says whose profile it is.
Table profile_table(const std::string& name, const Profile& profile);

}  // namespace tilegrad::train

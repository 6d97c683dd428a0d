#pragma once

#include <vector>

#include "tilegrad/autograd/gradcheck_cases.h"

namespace tilegrad::train {

/// What `tilegrad check` goes through: every case of autograd, and whole transformer blocks.
std::vector<GradcheckCase> check_cases();

}  // namespace tilegrad::train

#pragma once

#include <string>
#include <vector>

namespace tilegrad::train {

/// Lines of cells as CSV (RFC 4180, with "\n"): cells with a comma, a quote or a line break are quoted.
std::string csv(const std::vector<std::vector<std::string>>& lines);

}  // namespace tilegrad::train

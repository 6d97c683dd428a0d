#pragma once

#include <string>
#include <vector>

namespace tilegrad::train {

/// Rows of text as aligned columns, the first one to the left and the others to the right, under a heading
/// and a rule.
std::string format_table(const std::vector<std::string>& heading,
                         const std::vector<std::vector<std::string>>& rows);

}  // namespace tilegrad::train

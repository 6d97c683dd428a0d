#pragma once

#include <string>
#include <vector>

#include "train/report.h"

namespace tilegrad::train {

/// Rows of text as aligned columns, the first one to the left and the others to the right, under a heading
/// and a rule.
std::string format_table(const std::vector<std::string>& heading,
                         const std::vector<std::vector<std::string>>& rows);
/// A report's table in the same form, under its title.
std::string format_table(const ReportTable& table);

}  // namespace tilegrad::train

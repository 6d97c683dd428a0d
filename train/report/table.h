#pragma once

#include <string>
#include <vector>

namespace tilegrad::train {

struct Table {
  std::string title = {};
  std::vector<std::string> columns = {};  ///< with their units
  std::vector<std::vector<std::string>> rows = {};
  bool folded = false;  ///< a page shows it when clicked
};

/// Rows of text as aligned columns, the first one to the left and the others to the right, under a heading
/// and a rule.
std::string format_table(const std::vector<std::string>& heading,
                         const std::vector<std::vector<std::string>>& rows);
/// A report's table in the same form, under its title.
std::string format_table(const Table& table);

}  // namespace tilegrad::train

#include "tilegrad/train/report/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace tilegrad::train {

std::string format_table(const std::vector<std::string>& heading,
                         const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const std::string& cell : heading) widths.push_back(cell.size());
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const auto line = [&](const std::vector<std::string>& row) {
    std::string text;
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += i == 0 ? fmt::format("{:<{}}", row[i], widths[i]) : fmt::format("  {:>{}}", row[i], widths[i]);
    }
    return text + "\n";
  };
  std::string out = line(heading);
  out += std::string(out.size() - 1, '-') + "\n";
  for (const auto& row : rows) out += line(row);
  return out;
}

std::string format_table(const Table& table) {
  return table.title + "\n" + format_table(table.columns, table.rows);
}

}  // namespace tilegrad::train

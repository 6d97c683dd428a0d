#include "tilegrad/train/report/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace tilegrad::train {

namespace {

// Bytes that continue a character of UTF-8 take no room.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string format_table(const std::vector<std::string>& heading,
                         const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const std::string& cell : heading) widths.push_back(width_of(cell));
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  const auto line = [&](const std::vector<std::string>& row) {
    std::string text;
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += i == 0 ? fmt::format("{:<{}}", row[i], widths[i]) : fmt::format("  {:>{}}", row[i], widths[i]);
    }
    return text + "\n";
  };
  std::string out = line(heading);
  out += std::string(width_of(out) - 1, '-') + "\n";
  for (const auto& row : rows) out += line(row);
  return out;
}

std::string format_table(const Table& table) {
  return table.title + "\n" + format_table(table.columns, table.rows);
}

}  // namespace tilegrad::train

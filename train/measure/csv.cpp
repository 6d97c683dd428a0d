#include "tilegrad/train/measure/csv.h"

namespace tilegrad::train {

namespace {

std::string quoted(const std::string& cell) {
  if (cell.find_first_of(",\"\n") == std::string::npos) return cell;
  std::string text = "\"";
  for (const char c : cell) {
    if (c == '"') text += '"';
    text += c;
  }
  text += '"';
  return text;
}

}  // namespace

std::string csv(const std::vector<std::vector<std::string>>& lines) {
  std::string text;
  for (const auto& cells : lines) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) text += ',';
      text += quoted(cells[i]);
    }
    text += '\n';
  }
  return text;
}

}  // namespace tilegrad::train

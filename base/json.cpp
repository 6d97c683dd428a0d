#include "tilegrad/base/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tilegrad/base/file.h"

namespace tilegrad {

using nlohmann::ordered_json;

std::string json_text(const ordered_json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, ordered_json::error_handler_t::replace);
}

bool is_utf8(const std::string& bytes) {
  return ordered_json::parse(json_text(bytes)).get_ref<const std::string&>() == bytes;
}

bool for_each_json_line(const std::filesystem::path& file, const std::function<void(const JsonLine&)>& f) {
  const std::string content = read_file(file);
  std::string_view rest = content;
  for (Index number = 1; !rest.empty(); ++number) {
    const auto end = rest.find('\n');
    if (end == std::string_view::npos) return false;
    const std::string_view text = rest.substr(0, end + 1);
    rest.remove_prefix(end + 1);
    const ordered_json json = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    f({.number = number, .text = text, .json = json});
  }
  return true;
}

void read_json_lines(const std::filesystem::path& file, const std::function<bool(const ordered_json&)>& take,
                     std::vector<std::string>& warnings) {
  Index refused = 0, first = 0;
  const bool whole = for_each_json_line(file, [&](const JsonLine& line) {
    if (take(line.json)) return;
    if (++refused == 1) first = line.number;
  });
  std::string what = whole ? "" : "the last line was written only in part";
  if (refused > 0) {
    what = fmt::format("{} damaged line{}, the first is line {}{}", refused, refused == 1 ? "" : "s", first,
                       what.empty() ? "" : "; " + what);
  }
  if (!what.empty()) warnings.push_back(fmt::format("{}: {}; left out", file.string(), what));
}

}  // namespace tilegrad

#include "train/json_lines.h"

#include <fmt/format.h>

#include "base/file.h"
#include "base/index.h"

namespace tilegrad::train {

void read_json_lines(const std::filesystem::path& file, const TakeLine& take,
                     std::vector<std::string>& damage) {
  const std::string content = read_file(file);
  std::string_view rest = content;
  std::string what;
  Index refused = 0, first = 0;
  for (Index number = 1; !rest.empty(); ++number) {
    const auto end = rest.find('\n');
    if (end == std::string_view::npos) {
      what = "the last line was written by half";
      break;
    }
    const std::string_view text = rest.substr(0, end + 1);
    rest.remove_prefix(end + 1);
    if (take(text, nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false))) continue;
    if (++refused == 1) first = number;
  }
  if (refused > 0) {
    what = fmt::format("{} damaged line{}, the first is line {}{}", refused, refused == 1 ? "" : "s", first,
                       what.empty() ? "" : "; " + what);
  }
  if (!what.empty()) damage.push_back(fmt::format("{}: {}; left out", file.string(), what));
}

}  // namespace tilegrad::train

#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/base/index.h"

namespace tilegrad {

/// JSON as text: on one line, or with `indent` spaces a level. Bytes that are not valid UTF-8, which the name
/// of a file may contain, become U+FFFD.
std::string json_text(const nlohmann::ordered_json& json, int indent = -1);

/// Whether JSON can hold these bytes as they are.
bool is_utf8(const std::string& bytes);

/// One line of a file of JSON lines, complete with its line break.
struct JsonLine {
  Index number = 1;
  std::string_view text;               ///< with the line break
  const nlohmann::ordered_json& json;  ///< a discarded value if the text is not JSON
};

/// Calls f with every line of the file. Returns false if something follows the last line break: a line that
/// was written only in part.
bool for_each_json_line(const std::filesystem::path& file, const std::function<void(const JsonLine&)>& f);

/// Passes every line to `take`, which returns whether it accepts it. Other lines are left out, as is one that
/// was written only in part; if there are any, one sentence about the file is added to `warnings`.
void read_json_lines(const std::filesystem::path& file,
                     const std::function<bool(const nlohmann::ordered_json&)>& take,
                     std::vector<std::string>& warnings);

}  // namespace tilegrad

#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/base/index.h"

namespace tilegrad {

/// A line of a file that ends with a line break.
struct JsonLine {
  Index number = 1;
  std::string_view text;        ///< with the line break
  nlohmann::ordered_json json;  ///< a discarded value if the text is no JSON
};

/// Calls f with every line of the file. Returns false if something follows the last line break: a line that
/// was written by half.
bool for_each_json_line(const std::filesystem::path& file, const std::function<void(const JsonLine&)>& f);

/// Gives every line to `take`, which tells whether it is what it should be; otherwise it is left out, as is a
/// line that was written by half. If there is any, one sentence about the file is added to `damage`.
void read_json_lines(const std::filesystem::path& file,
                     const std::function<bool(const nlohmann::ordered_json&)>& take,
                     std::vector<std::string>& damage);

}  // namespace tilegrad

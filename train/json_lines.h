#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace tilegrad::train {

/// Takes one line of a file, its text with the line break and its JSON, and tells whether it is what it
/// should be. What is no JSON arrives as a discarded value.
using TakeLine = std::function<bool(std::string_view text, const nlohmann::ordered_json& json)>;

/// Gives every complete line of the file to `take`; a line that `take` refuses is left out, and so is what
/// follows the last line break. If there is any, one sentence about the file is added to `damage`.
void read_json_lines(const std::filesystem::path& file, const TakeLine& take,
                     std::vector<std::string>& damage);

}  // namespace tilegrad::train

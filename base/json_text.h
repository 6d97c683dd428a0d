#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace tilegrad {

/// JSON as text: on one line, or with `indent` spaces a level. Bytes that are no UTF-8, as the name of a file
/// may have, become U+FFFD.
inline std::string json_text(const nlohmann::ordered_json& json, int indent = -1) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace tilegrad

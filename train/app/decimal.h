#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <string>

namespace tilegrad::train {

/// Accepts a decimal number that T can hold, and nothing else. CLI11 by itself reads 010 as octal, and turns a number
/// that T cannot hold into another one.
template <class T>
CLI::Validator decimal() {
  const auto normalise = [](std::string& text) -> std::string {
    T value{};
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end) {
      return "`" + text + "` is not an integer between " + std::to_string(std::numeric_limits<T>::min()) +
             " and " + std::to_string(std::numeric_limits<T>::max());
    }
    text = std::to_string(value);
    return "";
  };
  return CLI::Validator(normalise, "");
}

}  // namespace tilegrad::train

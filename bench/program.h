#pragma once

#include <charconv>
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <type_traits>

#include "tilegrad/base/error.h"
#include "tilegrad/base/index.h"

/// What the programs share that the scripts of this folder start.
namespace tilegrad::bench {

/// Calls main_of(), and returns the exit code: its own if it has one, or 0; 1, after a line on standard error, if it throws.
template <class F>
int guarded(F&& main_of) {
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<F>>) {
      main_of();
      return 0;
    } else {
      return main_of();
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

/// The number that an argument of `program` is. Throws Error unless it is a positive whole number.
inline Index positive(std::string_view program, std::string_view text) {
  Index value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size() && value > 0,
        "{}: `{}` is not a positive whole number", program, text);
  return value;
}

/// A line of JSON, for whoever asked.
inline void answer(const nlohmann::ordered_json& json) { std::cout << json.dump() << std::endl; }

}  // namespace tilegrad::bench

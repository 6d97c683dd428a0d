#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace tilegrad {

/// What every public function of tilegrad throws when it is misused or when the system fails. The
/// message is one line: the operation first, in lower case, then what is wrong with the values themselves.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error with a formatted message unless `condition` holds. The message is only formatted on failure:
///   check(a.cols == b.rows, "matmul: inner sizes differ: a is {}, b is {}", a.shape(), b.shape());
template <class... Args>
void check(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]] {
    fail(format, std::forward<Args>(args)...);
  }
}

}  // namespace tilegrad

#pragma once

#include <string>

namespace course {

/// Thrown by a stub: the exercise is not solved.
struct NotWritten {
  std::string text;
};

/// Thrown by a view that is used wrongly.
struct Misuse {
  std::string text;
};

}  // namespace course

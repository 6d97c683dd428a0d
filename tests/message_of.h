#pragma once

#include <string>

#include "tilegrad/base/error.h"

namespace tilegrad::test {

/// The message of the Error that f() throws; empty if it throws none.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace tilegrad::test

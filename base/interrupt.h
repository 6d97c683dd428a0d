#pragma once

#include <csignal>

namespace tilegrad {

/// While it lives, the first Ctrl-C (or SIGTERM) only asks to stop; a second one, at least a second later,
/// ends the program as usual.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  static bool requested();

 private:
  struct sigaction outer_int_;
  struct sigaction outer_term_;
};

}  // namespace tilegrad

#pragma once

#include <array>
#include <csignal>

namespace tilegrad {

/// While it lives, the first Ctrl-C only asks to stop, so that the program can save; so do SIGTERM, SIGHUP
/// (the terminal is gone) and SIGPIPE (the reader of the output is gone). A second Ctrl-C, SIGTERM or SIGHUP,
/// at least a second later, ends the program as usual. A signal that was ignored, as in a background job or
/// under nohup, stays ignored.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  static bool requested();
  /// The signal that asked first, in this scope or, if there is none, in the latest one; 0 if none has.
  static int signal();

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
  std::array<struct sigaction, kSignals.size()> outer_;
};

}  // namespace tilegrad

#pragma once

#include <cstddef>
#include <ostream>

namespace tilegrad::train {

/// Where a command writes: results to `out`, errors and logs to `err`. On a terminal, progress is one line
/// that is overwritten.
struct Console {
  std::ostream& out;
  std::ostream& err;
  bool terminal = false;
  std::size_t columns = 80;  ///< of the terminal
};

/// What the program returns to its caller.
enum ExitCode : int {
  kSuccess = 0,
  kFailure = 1,           ///< something went wrong, or a check failed
  kWrongCommandLine = 2,  ///< the command line could not be understood
  kInterrupted = 130,     ///< stopped by Ctrl-C (or SIGTERM) after it had saved
};

}  // namespace tilegrad::train

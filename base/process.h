#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tilegrad/base/index.h"

namespace tilegrad {

struct ChildResult {
  int exit_code = 0;   ///< 128 + the signal's number if a signal ended it
  Index peak_rss = 0;  ///< the most physical memory that it held, in bytes
  /// The interrupt that was passed on ended it, since it had no handler yet, or none any more.
  bool ended_by_interrupt = false;
};

/// Runs a program to its end. Its output goes where ours goes; an interrupt (base/interrupt.h) is passed on
/// to it as SIGTERM, and we still wait for it to end. Throws if it cannot be started.
ChildResult run_child(const std::filesystem::path& program, const std::vector<std::string>& arguments);

/// Opens /dev/null as each of standard input, output and error that the caller left closed. Otherwise the next
/// file that is opened would get its number, and what is printed would land in that file. Call it first.
void open_standard_streams();

}  // namespace tilegrad

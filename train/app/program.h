#pragma once

#include "tilegrad/train/report/console.h"

namespace tilegrad::train {

/// The whole program: parses the command line, runs the command, and turns every error into one line on
/// console.err. Returns the exit code.
int run(int argc, const char* const* argv, const Console& console);

}  // namespace tilegrad::train

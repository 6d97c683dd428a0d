#pragma once

#include <string>

#include "base/index.h"

namespace tilegrad {

/// "640 B", "1.5 KiB", "12.3 MiB": powers of 1024, one decimal from KiB on.
std::string format_bytes(Index bytes);

}  // namespace tilegrad

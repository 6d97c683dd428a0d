#pragma once

#include <string>

#include "tilegrad/base/index.h"

namespace tilegrad {

/// "640 B", "1.5 KiB", "12.3 MiB": powers of 1024, one decimal from KiB on.
std::string format_bytes(Index bytes);

/// Bytes in units of 2^20, for an axis or a column that names the unit.
constexpr double mebibytes(Index bytes) { return static_cast<double>(bytes) / (1 << 20); }

/// "1:02:03", "2:03" or "12 s".
std::string format_duration(double seconds);

/// "950", "12.3k", "4.5M".
std::string format_count(double n);

}  // namespace tilegrad

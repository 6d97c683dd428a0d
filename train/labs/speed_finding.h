#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/measure/statistics.h"

namespace tilegrad::train {

/// "flash is 1.3x faster than naive", or "the times of flash and naive are not distinguishable" unless the
/// verdict of a sign test over the interleaved repetitions (or rounds) supports it.
std::string speed_finding(std::string_view a, std::string_view b, const std::vector<double>& a_ms,
                          const std::vector<double>& b_ms, Verdict verdict);

}  // namespace tilegrad::train

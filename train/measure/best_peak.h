#pragma once

#include <filesystem>
#include <string>

#include "tilegrad/base/index.h"

/// The highest speed that was ever measured on this machine. A peak that is measured anew each time differs with what
/// the neighbours do, and with it every fraction of the peak.
namespace tilegrad::train {

/// Where it is kept: tilegrad/peaks.json in $XDG_CACHE_HOME, or in ~/.cache if that is not an absolute path; empty if
/// there is no such folder.
std::filesystem::path peaks_file();

/// The highest FMA peak in GFLOP/s of `threads` threads: `measured`, or what was remembered of this processor, with as
/// many threads and the same SIMD target, if that is more. `type` names what was computed in: "f32". What is highest is
/// remembered. A file that is damaged counts as none, and is replaced; one that cannot be written, or that another
/// process is writing, is left.
double best_peak(double measured, std::string_view type, int threads);

}  // namespace tilegrad::train

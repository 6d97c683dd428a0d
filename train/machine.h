#pragma once

#include <string>

#include "machine/speed.h"

/// What the system tells about this machine; its speeds are measured.
namespace tilegrad::train {

/// Bytes of one core's L2 cache; 1 MiB if the system does not tell.
Index l2_bytes();

/// "AMD EPYC 9654"; "unknown processor" if the system does not tell.
std::string processor_name();

}  // namespace tilegrad::train

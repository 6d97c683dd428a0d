#pragma once

#include <string>

#include "tilegrad/base/index.h"

/// What the system says about this machine.
namespace tilegrad {

/// "AMD EPYC 9654"; "unknown processor" if the system does not say.
std::string processor_name();

/// Bytes of one core's L2 cache; 1 MiB if the system does not say.
Index l2_bytes();

/// How often this process touched memory that the system had to find first, without reading a disk.
Index page_faults();

/// Bytes of memory that the machine has; 0 if the system does not say.
Index installed_memory();

}  // namespace tilegrad

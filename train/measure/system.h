#pragma once

#include <string>

#include "tilegrad/base/index.h"

/// What the system tells about this machine.
namespace tilegrad {

/// "AMD EPYC 9654"; "unknown processor" if the system does not tell.
std::string processor_name();

/// Bytes of one core's L2 cache; 1 MiB if the system does not tell.
Index l2_bytes();

/// Bytes of memory that the machine has; 0 if the system does not tell.
Index installed_memory();

}  // namespace tilegrad

#pragma once

#include <cstdint>

namespace tilegrad {

/// The one integer type for sizes, strides and positions: signed, so that differences are safe.
using Index = std::int64_t;

}  // namespace tilegrad

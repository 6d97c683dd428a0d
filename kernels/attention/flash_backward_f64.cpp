// The backward pass in double. Each type has a source of its own, so that the two compile in parallel.
namespace tilegrad::kernels {
using Real = double;
}  // namespace tilegrad::kernels
#include "tilegrad/kernels/attention/flash_backward_entry-inl.h"

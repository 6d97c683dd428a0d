#include "tilegrad/autograd/dtype.h"

namespace tilegrad {

namespace {

struct Entry {
  std::string_view name;
  Index bytes;
};
// In the order of Dtype.
constexpr Entry kDtypes[] = {{"f32", 4}, {"f64", 8}, {"bf16", 2}, {"f16", 2}, {"i32", 4}, {"u8", 1}};

const Entry& entry(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)]; }

}  // namespace

std::string_view to_string(Dtype dtype) { return entry(dtype).name; }
Index bytes_of(Dtype dtype) { return entry(dtype).bytes; }

}  // namespace tilegrad

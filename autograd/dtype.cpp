#include "tilegrad/autograd/dtype.h"

namespace tilegrad {

std::string_view name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return "f32";
    case Dtype::f64:
      return "f64";
    case Dtype::bf16:
      return "bf16";
    case Dtype::i32:
      return "i32";
    case Dtype::u8:
      return "u8";
  }
  return "?";
}

Index bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return 8;
    case Dtype::bf16:
      return 2;
    case Dtype::u8:
      return 1;
    case Dtype::f32:
    case Dtype::i32:
      return 4;
  }
  return 0;
}

}  // namespace tilegrad

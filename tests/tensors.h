#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "tilegrad/autograd/tensor.h"
#include "tilegrad/autograd/var.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/base/random.h"

/// Tensors to compute with, and their comparison. For the kernels, which know no tensors: reference.h.
namespace tilegrad::test {

/// Normal random numbers.
inline Tensor random(const Shape& shape, std::uint64_t seed, Dtype dtype = Dtype::f64) {
  return Tensor::normal(shape, dtype, RandomKey{seed});
}

/// The same, as a value whose gradient is wanted.
inline Var random_leaf(const Shape& shape, std::uint64_t seed, Dtype dtype = Dtype::f64) {
  return Var::leaf(random(shape, seed, dtype));
}

/// A mask for attention, u8, that hides four pairs of ten.
inline Tensor random_mask(const Shape& shape) {
  Tensor mask = Tensor::empty(shape, Dtype::u8);
  RandomStream stream(RandomKey{9});
  for (auto& seen : mask.mut<std::uint8_t>()) seen = stream.uniform() < 0.6;
  return mask;
}

inline Tensor scalar(double value) { return Tensor::full({}, Dtype::f64, value); }

/// Lengths or offsets, i32.
inline Tensor integers(std::initializer_list<std::int32_t> values) {
  return Tensor::from<std::int32_t>({static_cast<Index>(values.size())}, values);
}

/// Largest |a − b|; infinite if the shapes differ or a NaN is among them.
inline double distance(const Tensor& a, const Tensor& b) {
  if (!(a.shape() == b.shape())) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double d = std::abs(a.at(i) - b.at(i));
    if (!(d <= worst)) worst = std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return worst;
}

/// Bytes of tracked memory that are used for this.
inline Index live(memory::Category category) {
  return memory::usage().live_by_category[static_cast<std::size_t>(category)];
}

}  // namespace tilegrad::test

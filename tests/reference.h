#pragma once

#include <cstdint>
#include <vector>

#include "tests/close.h"
#include "tilegrad/base/index.h"
#include "tilegrad/base/random.h"

/// Inputs, and plain loops in double to compare with. Nothing here is shared with kernels/.
namespace tilegrad::test {

/// Normal random numbers.
template <class T>
std::vector<T> random(Index n, std::uint64_t seed, double scale = 1) {
  RandomStream stream(RandomKey{seed});
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& value : x) value = static_cast<T>(scale * stream.normal());
  return x;
}

/// Random ids in [0, below).
inline std::vector<std::int32_t> random_ids(Index n, std::uint64_t seed, Index below) {
  RandomStream stream(RandomKey{seed});
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (auto& id : ids) id = static_cast<std::int32_t>(stream.below(static_cast<std::uint64_t>(below)));
  return ids;
}

/// A matrix with room after each row; the room holds NaN, which nobody may read or change.
template <class T>
struct Padded {
  Index rows, cols, stride;
  std::vector<T> data;

  Padded(Index rows_, Index cols_, std::uint64_t seed, Index room = 3)
      : rows(rows_), cols(cols_), stride(cols_ + room), data(random<T>(rows_ * (cols_ + room), seed)) {
    for (Index i = 0; i < rows; ++i) {
      for (Index j = cols; j < stride; ++j) at(i, j) = std::numeric_limits<T>::quiet_NaN();
    }
  }

  T& at(Index i, Index j) { return data[i * stride + j]; }
  double operator()(Index i, Index j) const { return static_cast<double>(data[i * stride + j]); }

  void fill(T value) {
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) at(i, j) = value;
    }
  }

  /// The elements without the room.
  std::vector<T> dense() const {
    std::vector<T> out;
    for (Index i = 0; i < rows; ++i) {
      out.insert(out.end(), data.begin() + i * stride, data.begin() + i * stride + cols);
    }
    return out;
  }

  bool room_is_untouched() const {
    for (Index i = 0; i < rows; ++i) {
      for (Index j = cols; j < stride; ++j) {
        if ((*this)(i, j) == (*this)(i, j)) return false;
      }
    }
    return true;
  }
};

}  // namespace tilegrad::test

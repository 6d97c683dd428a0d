#pragma once

#include <initializer_list>
#include <limits>
#include <vector>

#include "tests/close.h"
#include "tests/reference.h"
#include "tests/sanitized.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/kernels/views.h"

/// What every kernel promises, checked in one place.
namespace tilegrad::test {

template <class T>
kernels::Mat<T> view(Padded<T>& x) {
  return {x.data.data(), x.rows, x.cols, x.stride};
}
template <class T>
kernels::Mat<const T> view(const Padded<T>& x) {
  return {x.data.data(), x.rows, x.cols, x.stride};
}

/// With how many threads the bits are to be those of one thread.
inline std::vector<int> thread_counts() {
  return kSanitized ? std::vector<int>{7} : std::vector<int>{2, 3, 4, 7};
}

/// compute() returns the same bits on 1, 2, 3, 4 and 7 threads.
template <class F>
void check_threads(F&& compute) {
  const auto on = [&](int count) {
    const kernels::ThreadScope scope(count);
    return compute();
  };
  const auto expected = on(1);
  for (const int count : thread_counts()) {
    INFO("threads: ", count);
    CHECK(same_bits(on(count), expected));
  }
}

/// backward(dx, write) as the first writer of a gradient, whose memory is garbage, and as a second one, which
/// adds: the gradient doubles.
template <class T, class F>
void check_writes(const std::vector<Sum>& expected, double terms, F&& backward) {
  std::vector<T> dx(expected.size(), std::numeric_limits<T>::quiet_NaN());
  backward(dx, kernels::Write::overwrite);
  check_close(dx, expected, terms);
  backward(dx, kernels::Write::accumulate);
  std::vector<Sum> twice = expected;
  for (Sum& s : twice) s = Sum(2 * s.value, 2 * s.magnitude);
  check_close(dx, twice, terms + 1);
}

}  // namespace tilegrad::test

#include "tilegrad/kernels/dropout.h"

#include "tilegrad/kernels/attention_dropout.h"
#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

// A tensor is one row, number 0, of what attention_dropout.h numbers.
template <class T>
void apply(std::span<T> y, Write write, std::span<const T> x, double p, RandomKey key) {
  constexpr Index kGrain = 16384;
  parallel_for(std::ssize(y), kGrain, [&](Index begin, Index end) {
    apply_dropout(y.data() + begin, write, x.data() + begin, begin, end - begin, 0, p, key);
  });
}

}  // namespace

template <class T>
void dropout(std::span<T> y, std::span<const T> x, double p, RandomKey key) {
  apply(y, Write::overwrite, x, p, key);
}

template <class T>
void dropout_backward(std::span<T> dx, Write write, std::span<const T> dy, double p, RandomKey key) {
  // forward: y = factors ⊙ x
  apply(dx, write, dy, p, key);
}

template void dropout<float>(std::span<float>, std::span<const float>, double, RandomKey);
template void dropout<double>(std::span<double>, std::span<const double>, double, RandomKey);
template void dropout_backward<float>(std::span<float>, Write, std::span<const float>, double, RandomKey);
template void dropout_backward<double>(std::span<double>, Write, std::span<const double>, double, RandomKey);

}  // namespace tilegrad::kernels

#include "tilegrad/kernels/axis.h"

#include <algorithm>
#include <array>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kColumns = 64;

// f(o, first, end) for neighbouring columns [first, end) of y's row o, at most kColumns of them.
template <class F>
void for_each_block(const AxisSizes& sizes, F&& f) {
  const Index blocks = (sizes.inner + kColumns - 1) / kColumns;
  const Index cost = std::max<Index>(1, sizes.n * std::min(sizes.inner, kColumns));
  parallel_for(sizes.outer * blocks, std::max<Index>(1, 32768 / cost), [&](Index begin, Index end) {
    for (Index k = begin; k < end; ++k) {
      const Index first = k % blocks * kColumns;
      f(k / blocks, first, std::min(first + kColumns, sizes.inner));
    }
  });
}

}  // namespace

template <class T>
void sum_axis(Grad<std::span<T>> y, std::span<const T> x, const AxisSizes& sizes, double s) {
  for_each_block(sizes, [&](Index o, Index first, Index end) {
    std::array<double, kColumns> totals{};
    for (Index i = 0; i < sizes.n; ++i) {
      const T* row = x.data() + (o * sizes.n + i) * sizes.inner;
      for (Index j = first; j < end; ++j) totals[j - first] += static_cast<double>(row[j]);
    }
    T* to = y.to.data() + o * sizes.inner;
    for (Index j = first; j < end; ++j) store(to[j], y.write, static_cast<T>(s * totals[j - first]));
  });
}

template <class T>
void repeat_axis(Grad<std::span<T>> x, std::span<const T> y, const AxisSizes& sizes, T s) {
  for_each_block(sizes, [&](Index o, Index first, Index end) {
    const T* from = y.data() + o * sizes.inner;
    for (Index i = 0; i < sizes.n; ++i) {
      T* row = x.to.data() + (o * sizes.n + i) * sizes.inner;
      for (Index j = first; j < end; ++j) store(row[j], x.write, s * from[j]);
    }
  });
}

template <class T>
void argmax_axis(std::span<std::int32_t> ids, std::span<const T> x, const AxisSizes& sizes) {
  for_each_block(sizes, [&](Index o, Index first, Index end) {
    for (Index j = first; j < end; ++j) {
      const T* column = x.data() + o * sizes.n * sizes.inner + j;
      Index best = 0;
      for (Index i = 1; i < sizes.n; ++i) {
        const T value = column[i * sizes.inner], largest = column[best * sizes.inner];
        if (value > largest || (value != value && largest == largest)) best = i;
      }
      ids[o * sizes.inner + j] = static_cast<std::int32_t>(best);
    }
  });
}

template <class T>
void take_axis(std::span<T> y, std::span<const T> x, std::span<const std::int32_t> ids,
               const AxisSizes& sizes) {
  for_each_block(sizes, [&](Index o, Index first, Index end) {
    for (Index j = first; j < end; ++j) {
      const Index at = o * sizes.inner + j;
      y[at] = x[(o * sizes.n + ids[at]) * sizes.inner + j];
    }
  });
}

template <class T>
void take_axis_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const std::int32_t> ids,
                        const AxisSizes& sizes) {
  for_each_block(sizes, [&](Index o, Index first, Index end) {
    T* to = dx.to.data() + o * sizes.n * sizes.inner;
    if (dx.write == Write::overwrite) {
      for (Index i = 0; i < sizes.n; ++i)
        std::fill(to + i * sizes.inner + first, to + i * sizes.inner + end, T{0});
    }
    for (Index j = first; j < end; ++j) {
      const Index at = o * sizes.inner + j;
      to[ids[at] * sizes.inner + j] += dy[at];
    }
  });
}

#define TILEGRAD_INSTANTIATE(T)                                                                              \
  template void sum_axis<T>(Grad<std::span<T>>, std::span<const T>, const AxisSizes&, double);               \
  template void repeat_axis<T>(Grad<std::span<T>>, std::span<const T>, const AxisSizes&, T);                 \
  template void argmax_axis<T>(std::span<std::int32_t>, std::span<const T>, const AxisSizes&);               \
  template void take_axis<T>(std::span<T>, std::span<const T>, std::span<const std::int32_t>,                \
                             const AxisSizes&);                                                              \
  template void take_axis_backward<T>(Grad<std::span<T>>, std::span<const T>, std::span<const std::int32_t>, \
                                      const AxisSizes&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels

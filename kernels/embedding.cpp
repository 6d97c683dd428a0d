#include "tilegrad/kernels/embedding.h"

#include <algorithm>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

template <class T>
void embedding(Mat<T> y, std::type_identity_t<Mat<const T>> table, std::span<const std::int32_t> ids) {
  constexpr Index kGrain = 65536;
  parallel_for(y.rows, std::max<Index>(1, kGrain / std::max<Index>(1, y.cols)), [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      std::copy_n(table.row(ids[static_cast<std::size_t>(n)]), y.cols, y.row(n));
    }
  });
}

template <class T>
void embedding_backward(Mat<T> dtable, Write write, std::type_identity_t<Mat<const T>> dy,
                        std::span<const std::int32_t> ids) {
  // Two positions may have the same id, so threads share the columns, not the positions.
  constexpr Index kColumns = 64;
  parallel_for(dtable.cols, kColumns, [&](Index begin, Index end) {
    if (write == Write::overwrite) {
      for (Index v = 0; v < dtable.rows; ++v) std::fill(dtable.row(v) + begin, dtable.row(v) + end, T{0});
    }
    for (Index n = 0; n < dy.rows; ++n) {
      // forward: y[n, :] = table[ids[n], :]
      T* to = dtable.row(ids[static_cast<std::size_t>(n)]);
      const T* from = dy.row(n);
      for (Index j = begin; j < end; ++j) to[j] += from[j];
    }
  });
}

template void embedding<float>(Mat<float>, Mat<const float>, std::span<const std::int32_t>);
template void embedding<double>(Mat<double>, Mat<const double>, std::span<const std::int32_t>);
template void embedding_backward<float>(Mat<float>, Write, Mat<const float>, std::span<const std::int32_t>);
template void embedding_backward<double>(Mat<double>, Write, Mat<const double>,
                                         std::span<const std::int32_t>);

}  // namespace tilegrad::kernels

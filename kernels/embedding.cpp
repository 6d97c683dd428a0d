#include "tilegrad/kernels/embedding.h"

#include <algorithm>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

template <class T>
void embedding(Mat<T> y, Mat<const T> table, std::span<const std::int32_t> ids) {
  constexpr Index kGrain = 65536;
  parallel_for(y.rows, std::max<Index>(1, kGrain / std::max<Index>(1, y.cols)), [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n) {
      std::copy_n(table.row(ids[n]), y.cols, y.row(n));
    }
  });
}

template <class T>
void embedding_backward(Grad<Mat<T>> dtable, Mat<const T> dy, std::span<const std::int32_t> ids) {
  // Two positions may have the same id, so threads share the columns, not the positions.
  constexpr Index kColumns = 64;
  parallel_for(dtable.to.cols, kColumns, [&](Index begin, Index end) {
    if (dtable.write == Write::overwrite) {
      for (Index v = 0; v < dtable.to.rows; ++v) {
        std::fill(dtable.to.row(v) + begin, dtable.to.row(v) + end, T{0});
      }
    }
    for (Index n = 0; n < dy.rows; ++n) {
      // forward: y[n, :] = table[ids[n], :]
      T* to = dtable.to.row(ids[n]);
      const T* from = dy.row(n);
      for (Index j = begin; j < end; ++j) to[j] += from[j];
    }
  });
}

#define TILEGRAD_INSTANTIATE(T)                                                    \
  template void embedding<T>(Mat<T>, Mat<const T>, std::span<const std::int32_t>); \
  template void embedding_backward<T>(Grad<Mat<T>>, Mat<const T>, std::span<const std::int32_t>);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels

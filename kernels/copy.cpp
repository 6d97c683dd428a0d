#include "tilegrad/kernels/copy.h"

#include <algorithm>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

constexpr Index kGrain = 32768;

template <class T>
void copy_run(T* dst, Write write, const T* src, Index n) {
  if (write == Write::overwrite) {
    std::copy_n(src, n, dst);
  } else {
    for (Index i = 0; i < n; ++i) dst[i] += src[i];
  }
}

}  // namespace

template <class T>
void copy(Mat<T> dst, Write write, Mat<const T> src) {
  parallel_for(dst.rows, std::max<Index>(1, kGrain / std::max<Index>(1, dst.cols)),
               [&](Index begin, Index end) {
                 for (Index i = begin; i < end; ++i) copy_run(dst.row(i), write, src.row(i), dst.cols);
               });
}

template <class T>
void swap_axes(T* dst, Write write, const T* src, Index a, Index b, Index c, Index d) {
  parallel_for(a * b, std::max<Index>(1, kGrain / std::max<Index>(1, c * d)), [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index ia = i / b, ib = i % b;
      for (Index ic = 0; ic < c; ++ic) {
        copy_run(dst + ((ia * c + ic) * b + ib) * d, write, src + (i * c + ic) * d, d);
      }
    }
  });
}

#define TILEGRAD_INSTANTIATE(T)                       \
  template void copy<T>(Mat<T>, Write, Mat<const T>); \
  template void swap_axes<T>(T*, Write, const T*, Index, Index, Index, Index);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels

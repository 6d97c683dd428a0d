#include "tilegrad/kernels/linear_cross_entropy.h"

#include <algorithm>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/gemm.h"
#include "tilegrad/kernels/round_up.h"
#include "tilegrad/kernels/softmax.h"

namespace tilegrad::kernels {

namespace {

// The logits of one block, which become their own gradient, and two numbers for each row.
template <class T>
struct Block {
  memory::Block memory;
  Mat<T> logits;
  std::span<T> max, log_sum;

  Block(Index rows, Index vocabulary)
      : memory(rows * (vocabulary + 2) * Index{sizeof(T)}, memory::Category::workspace),
        logits(reinterpret_cast<T*>(memory.data()), rows, vocabulary),
        max(logits.data + rows * vocabulary, static_cast<std::size_t>(rows)),
        log_sum(max.data() + rows, static_cast<std::size_t>(rows)) {}
};

template <class T>
T beta(Write write) {
  return write == Write::accumulate ? T{1} : T{0};
}

}  // namespace

template <class T>
Index linear_cross_entropy_rows(Index rows, Index vocabulary) {
  constexpr Index kBytes = 4 << 20, kLeastRows = 256;
  const Index most = std::max(kLeastRows, kBytes / (std::max<Index>(1, vocabulary) * Index{sizeof(T)}));
  const Index blocks = std::max<Index>(1, ceil_div(rows, most));
  return ceil_div(rows, blocks);
}

template <class T>
double linear_cross_entropy(Grad<Mat<T>> dx, Grad<Mat<T>> dweight, Mat<const T> x, Mat<const T> weight,
                            std::span<const std::int32_t> targets, std::int32_t ignored, T s) {
  const Block<T> whole(linear_cross_entropy_rows<T>(x.rows, weight.rows), weight.rows);
  double total = 0;
  for (Index first = 0; first < x.rows; first += whole.logits.rows) {
    const Index rows = std::min(whole.logits.rows, x.rows - first);
    const auto count = static_cast<std::size_t>(rows);
    const Mat<T> logits = whole.logits.row_block(0, rows);
    const auto max = whole.max.first(count), log_sum = whole.log_sum.first(count);
    const auto target = targets.subspan(static_cast<std::size_t>(first), count);
    const Mat<const T> x_block = x.row_block(first, rows);
    gemm<T>(logits, T{1}, x_block, Op::none, weight, Op::transpose, T{0});
    total += cross_entropy<T>(max, log_sum, logits, target, ignored);
    if (!dx && !dweight) continue;
    // forward: loss = cross_entropy(logits) and logits = x weightᵀ
    const Mat<T> dlogits = logits;
    cross_entropy_backward<T>({dlogits, Write::overwrite}, s, logits, max, log_sum, target, ignored);
    if (dx) {
      gemm<T>(dx.to.row_block(first, rows), T{1}, dlogits, Op::none, weight, Op::none, beta<T>(dx.write));
    }
    if (dweight) {
      const Write write = first == 0 ? dweight.write : Write::accumulate;
      gemm<T>(dweight.to, T{1}, dlogits, Op::transpose, x_block, Op::none, beta<T>(write));
    }
  }
  return total;
}

#define TILEGRAD_INSTANTIATE(T)                                                                   \
  template Index linear_cross_entropy_rows<T>(Index, Index);                                      \
  template double linear_cross_entropy<T>(Grad<Mat<T>>, Grad<Mat<T>>, Mat<const T>, Mat<const T>, \
                                          std::span<const std::int32_t>, std::int32_t, T);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels

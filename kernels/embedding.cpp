#include "tilegrad/kernels/embedding.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "tilegrad/kernels/parallel.h"
#include "tilegrad/kernels/row_sums.h"

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

namespace {

// The positions of each id, in order: those of id v are positions[first[v]] to positions[first[v + 1] − 1].
struct PositionsById {
  std::vector<Index> first, positions;

  PositionsById(Index vocabulary, std::span<const std::int32_t> ids)
      : first(static_cast<std::size_t>(vocabulary + 1)), positions(ids.size()) {
    for (const std::int32_t id : ids) ++first[id + 1];
    std::partial_sum(first.begin(), first.end(), first.begin());
    std::vector<Index> next(first);
    for (Index n = 0; n < std::ssize(ids); ++n) positions[next[ids[n]]++] = n;
  }
  std::span<const Index> of(Index id) const {
    return std::span(positions).subspan(first[id], first[id + 1] - first[id]);
  }
};

}  // namespace

template <class T>
void embedding_backward(Grad<Mat<T>> dtable, Mat<const T> dy, std::span<const std::int32_t> ids) {
  constexpr Index kGrain = 16384, kColumns = 64;
  const PositionsById by_id(dtable.to.rows, ids);
  const auto sum_rows = [&](Index id, Index begin, Index end) {
    std::array<T, kColumns> block;
    std::array<double, kColumns> totals;
    RowSums<T> sums(block.data(), totals.data(), end - begin);
    for (const Index n : by_id.of(id)) {
      // forward: y[n, :] = table[ids[n], :]
      T* to = sums.next();
      for (Index j = begin; j < end; ++j) to[j - begin] += dy(n, j);
    }
    sums.finish();
    for (Index j = begin; j < end; ++j) {
      store(dtable.to(id, j), dtable.write, static_cast<T>(totals[j - begin]));
    }
  };
  const Index cols = dtable.to.cols;
  parallel_for(dtable.to.rows, std::max<Index>(1, kGrain / std::max<Index>(1, cols)),
               [&](Index first, Index last) {
                 for (Index id = first; id < last; ++id) {
                   if (by_id.of(id).empty()) {
                     if (dtable.write == Write::overwrite) std::fill_n(dtable.to.row(id), cols, T{0});
                     continue;
                   }
                   for (Index j = 0; j < cols; j += kColumns) sum_rows(id, j, std::min(j + kColumns, cols));
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

#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "tilegrad/base/index.h"
#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

/// Elements [begin, end) of one of several arrays.
struct Piece {
  std::size_t array;
  Index begin, end;
};

/// Consecutive pieces of arrays of these sizes, one array after the other, each of `grain` elements except the last one
/// of an array.
inline std::vector<Piece> pieces_of(const std::vector<Index>& sizes, Index grain) {
  std::vector<Piece> pieces;
  for (std::size_t array = 0; array < sizes.size(); ++array) {
    for (Index begin = 0; begin < sizes[array]; begin += grain) {
      pieces.push_back({array, begin, std::min(begin + grain, sizes[array])});
    }
  }
  return pieces;
}

/// Calls f(i) for each of the pieces, number i, as tasks of one job: threads wake up once for all the arrays, and small
/// arrays are spread over them.
template <class F>
void parallel_for(const std::vector<Piece>& pieces, F&& f) {
  parallel_tasks(static_cast<Index>(pieces.size()), [&](Index i, int) { f(static_cast<std::size_t>(i)); });
}

}  // namespace tilegrad::kernels

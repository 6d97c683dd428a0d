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

/// Consecutive pieces of arrays, one array after the other, each of `grain` elements except the last one of an array.
/// size_of(arrays[i]) is the number of elements of array i.
template <class Arrays, class SizeOf>
std::vector<Piece> pieces_of(const Arrays& arrays, Index grain, SizeOf&& size_of) {
  std::vector<Piece> pieces;
  for (std::size_t array = 0; array < arrays.size(); ++array) {
    const Index size = size_of(arrays[array]);
    for (Index begin = 0; begin < size; begin += grain) {
      pieces.push_back({array, begin, std::min(begin + grain, size)});
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

#pragma once

#include <algorithm>

#include "tilegrad/kernels/attention/problem.h"
#include "tilegrad/kernels/parallel.h"

/// What the backward passes of naive and flash attention share. Private to kernels/.
namespace tilegrad::kernels {

/// Makes a dbias that is to be overwritten 0, because tasks add to it.
template <class T>
void clear_dbias(const Grad<ScoreView<T>>& dbias, const AttentionProblem<T>& problem) {
  if (!dbias || dbias.write == Write::accumulate) return;
  const Index batch = dbias.to.stride_b == 0 ? 1 : problem.batch;
  const Index heads = dbias.to.stride_h == 0 ? 1 : problem.heads;
  parallel_tasks(batch * heads * problem.tq, [&](Index n, int) {
    const Index i = n % problem.tq, h = n / problem.tq % heads, b = n / problem.tq / heads;
    std::fill_n(dbias.to.row(b, h, i), problem.tk, T{0});
  });
}

}  // namespace tilegrad::kernels

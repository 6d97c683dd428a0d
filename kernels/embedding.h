#pragma once

#include <cstdint>
#include <span>

#include "tilegrad/kernels/views.h"

namespace tilegrad::kernels {

/// y[n, :] = table[ids[n], :], for float and double. Ids lie in [0, table.rows).
template <class T>
void embedding(Mat<T> y, Mat<const T> table, std::span<const std::int32_t> ids);
/// dtable[ids[n], :] (+)= dy[n, :]. Rows of equal id are added in the order of row_sums.h;
/// overwrite zeroes the rows of ids that do not occur.
template <class T>
void embedding_backward(Grad<Mat<T>> dtable, Mat<const T> dy, std::span<const std::int32_t> ids);

}  // namespace tilegrad::kernels

#pragma once

#include <span>
#include <string>
#include <type_traits>

#include "tilegrad/kernels/views.h"

namespace tilegrad::kernels {

enum class Op { none, transpose };

/// c = alpha * op_a(a) * op_b(b) + beta * c, for float and double. With op_a(a) of shape (M, K) and op_b(b)
/// of (K, N), c is (M, N). With beta = 0, c may be uninitialised. NaN and infinity pass through, 0 · ∞ = NaN,
/// but alpha = 0 does not read a and b. Throws Error if OpenBLAS is to compute it (see gemm.cpp) and a size is beyond
/// 2³¹ − 1.
///
/// Large products are cut into pieces that depend on the shape alone. So the result has the same bits for every
/// number of threads.
template <class T>
void gemm(Mat<T> c, T alpha, Mat<const T> a, Op op_a, Mat<const T> b, Op op_b, T beta);

/// c = op_a(a) * op_b(b) + bias, the bias (N) added to every row. The bits are those of gemm() and an addition after it, but
/// memory is passed over once. Errors as for gemm().
template <class T>
void gemm_bias(Mat<T> c, Mat<const T> a, Op op_a, Mat<const T> b, Op op_b, std::span<const T> bias);

/// The product of gemm() on the calling thread alone, by OpenBLAS, for kernels that are parallel outside.
template <class T>
void gemm_serial(Mat<T> c, T alpha, Mat<const T> a, Op op_a, Mat<const T> b, Op op_b, T beta);

/// The processor that OpenBLAS has chosen its kernels for, e.g. "SkylakeX". OPENBLAS_CORETYPE overrides it.
std::string blas_core();

}  // namespace tilegrad::kernels

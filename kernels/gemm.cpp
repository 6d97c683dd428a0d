#include "tilegrad/kernels/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <limits>
#include <mutex>
#include <type_traits>

#include "tilegrad/base/error.h"
#include "tilegrad/kernels/elementwise.h"
#include "tilegrad/kernels/gemm/packed.h"
#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

// Below this much work, waking other threads costs more than they save.
constexpr Index kSerialFlops = 2'000'000;

CBLAS_TRANSPOSE cblas_op(Op op) { return op == Op::none ? CblasNoTrans : CblasTrans; }

blasint to_blas(Index n) { return static_cast<blasint>(n); }

// OpenBLAS counts in blasint.
void check_sizes(const auto&... matrices) {
  const auto check_one = [](const auto& m) {
    constexpr Index kMax = std::numeric_limits<blasint>::max();
    check(m.rows <= kMax && m.cols <= kMax && m.stride <= kMax,
          "gemm: a matrix of {} rows, {} columns and stride {} is too large, at most {} each", m.rows, m.cols,
          m.stride, kMax);
  };
  (check_one(matrices), ...);
}

void call(Mat<float> c, float alpha, Mat<const float> a, Op op_a, Mat<const float> b, Op op_b, Index inner,
          float beta) {
  cblas_sgemm(CblasRowMajor, cblas_op(op_a), cblas_op(op_b), to_blas(c.rows), to_blas(c.cols), to_blas(inner),
              alpha, a.data, to_blas(a.stride), b.data, to_blas(b.stride), beta, c.data, to_blas(c.stride));
}

void call(Mat<double> c, double alpha, Mat<const double> a, Op op_a, Mat<const double> b, Op op_b,
          Index inner, double beta) {
  cblas_dgemm(CblasRowMajor, cblas_op(op_a), cblas_op(op_b), to_blas(c.rows), to_blas(c.cols), to_blas(inner),
              alpha, a.data, to_blas(a.stride), b.data, to_blas(b.stride), beta, c.data, to_blas(c.stride));
}

// c = beta c: what is left if the inner size is 0, which a BLAS takes for a wrong stride.
template <class T>
void scale(Mat<T> c, T beta) {
  for (Index i = 0; i < c.rows; ++i) {
    for (Index j = 0; j < c.cols; ++j) c(i, j) = beta == 0 ? T{0} : beta * c(i, j);
  }
}

// Adds a bias, if there is one, to every row of c.
template <class T>
void add_to_rows(Mat<T> c, const T* bias) {
  if (bias != nullptr) add_bias<T>(c, c, {bias, static_cast<std::size_t>(c.cols)});
}

// OpenBLAS built on its own thread pool would start it for every call. Its OpenMP build looks at OpenMP's
// settings instead, at each call: SingleThreaded takes care of that one.
void configure_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    constexpr int kOwnThreads = 1;
    if (openblas_get_parallel() == kOwnThreads) openblas_set_num_threads(1);
  });
}

// Who computes a product of floats. Time of ours divided by that of OpenBLAS 0.3.21 on one thread and on two threads, medians
// of pairs of calls, with matrices that are in no cache but the last. On a Zen 3 (AVX2):
//   768 x 128 x 128, a bᵀ    .79, .90   |  256 x 3072 x 768, a b      .97, .93
//   768 x 512 x 128, a bᵀ    .86, .84   |  256 x 50257 x 768, a bᵀ    .95, .95
//   768 x 128 x 512, a b     .90, .89   |  1024 x 1024 x 1024, a b    .98, .95
//   2048 x 1536 x 384, a bᵀ  .82, .81   |  512 x 128 x 768, aᵀ b      .96, .96
//   2048 x 384 x 1536, a b   .93, .94   |  1536 x 384 x 2048, aᵀ b    .86, .90
//   512 x 192 x 48, a bᵀ     .79, .86   |  3072 x 768 x 256, aᵀ b     .89, .82
//   1 x 768 x 768, a bᵀ      .73, .69   |  128 x 128 x 768, aᵀ b     1.04, 1.09
//   8 x 768 x 768, a bᵀ      .89, .86   |  192 x 48 x 512, aᵀ b      1.01, 1.05
// On a Zen 5 (AVX-512):
//   768 x 128 x 128, a bᵀ    .69, .82   |  256 x 3072 x 768, a b      .93, .92
//   768 x 512 x 128, a bᵀ    .81, .81   |  256 x 50257 x 768, a bᵀ    .94, .90
//   768 x 128 x 512, a b     .77, .76   |  1024 x 1024 x 1024, a b    .90, .89
//   2048 x 1536 x 384, a bᵀ  .88, .88   |  512 x 128 x 768, aᵀ b     1.00, 1.00
//   2048 x 384 x 1536, a b   .89, .89   |  1536 x 384 x 2048, aᵀ b    .96, .95
//   512 x 192 x 48, a bᵀ     .84, .95   |  3072 x 768 x 256, aᵀ b     .94, .93
//   1 x 768 x 768, a bᵀ     2.11, 2.00  |  128 x 128 x 768, aᵀ b      .94, .95
//   8 x 768 x 768, a bᵀ      .75, .74   |  192 x 48 x 512, aᵀ b      1.00, 1.07
// So OpenBLAS has small products, those of few rows with AVX-512, and more of those with a transposed a. It also has alpha = 0,
// where a BLAS does not read a and b, and every target that was not measured.
bool packing_pays(float alpha, Op op_a, Index rows, Index cols, Index inner) {
  struct Least {
    Index rows, work, work_transposed;  // work in multiplications
  };
  constexpr Least kAvx2 = {.rows = 1, .work = 8 * 8 * 8, .work_transposed = 1 << 25};
  constexpr Least kAvx512 = {.rows = 8, .work = 3 << 19, .work_transposed = 1 << 23};
  const packed::Target target = packed::target();
  if (alpha == 0 || target == packed::Target::other) return false;
  const Least& least = target == packed::Target::avx2 ? kAvx2 : kAvx512;
  return rows >= least.rows && rows * cols * inner > (op_a == Op::none ? least.work : least.work_transposed);
}

// Rows (or columns) of c in one piece for OpenBLAS. It depends on the shape alone. Every piece packs the other operand
// again, which costs 1 % with two pieces and 8 % with eight, so pieces are not small; their number is a power
// of two, because an odd one would leave the last piece to a single thread.
Index piece_size(Index n) {
  const auto most = static_cast<std::uint64_t>(std::clamp<Index>(n / 192, 2, 8));
  const auto pieces = static_cast<Index>(std::bit_floor(most));
  const Index size = (n + pieces - 1) / pieces;
  return (size + 15) / 16 * 16;
}

}  // namespace

template <class T>
void gemm_serial(Mat<T> c, T alpha, Mat<const T> a, Op op_a, Mat<const T> b, Op op_b, T beta) {
  const Index inner = op_a == Op::none ? a.cols : a.rows;
  assert(c.rows == (op_a == Op::none ? a.rows : a.cols));
  assert(c.cols == (op_b == Op::none ? b.cols : b.rows));
  assert(inner == (op_b == Op::none ? b.rows : b.cols));
  if (c.rows == 0 || c.cols == 0) return;
  if (inner == 0) return scale(c, beta);
  check_sizes(c, a, b);
  configure_once();
  const SingleThreaded single;
  call(c, alpha, a, op_a, b, op_b, inner, beta);
}

namespace {

// gemm(), and a bias added to every row of c if there is one.
template <class T>
void multiply(Mat<T> c, T alpha, Mat<const T> a, Op op_a, Mat<const T> b, Op op_b, T beta, const T* bias) {
  const Index inner = op_a == Op::none ? a.cols : a.rows;
  if constexpr (std::is_same_v<T, float>) {
    if (packing_pays(alpha, op_a, c.rows, c.cols, inner)) {
      return packed::multiply(
          {.c = c, .alpha = alpha, .a = a, .op_a = op_a, .b = b, .op_b = op_b, .beta = beta, .bias = bias});
    }
  }
  check_sizes(c, a, b);  // here, since a task must not throw
  if (2 * c.rows * c.cols * inner < kSerialFlops) {
    gemm_serial<T>(c, alpha, a, op_a, b, op_b, beta);
    add_to_rows(c, bias);
    return;
  }
  if (c.rows >= c.cols) {
    parallel_for(c.rows, piece_size(c.rows), [&](Index begin, Index end) {
      const Index n = end - begin;
      const Mat<T> rows = c.row_block(begin, n);
      gemm_serial<T>(rows, alpha, op_a == Op::none ? a.row_block(begin, n) : a.col_block(begin, n), op_a, b,
                     op_b, beta);
      add_to_rows(rows, bias);
    });
  } else {
    parallel_for(c.cols, piece_size(c.cols), [&](Index begin, Index end) {
      const Index n = end - begin;
      const Mat<T> cols = c.col_block(begin, n);
      gemm_serial<T>(cols, alpha, a, op_a, op_b == Op::none ? b.col_block(begin, n) : b.row_block(begin, n),
                     op_b, beta);
      add_to_rows(cols, bias == nullptr ? nullptr : bias + begin);
    });
  }
}

}  // namespace

template <class T>
void gemm(Mat<T> c, T alpha, Mat<const T> a, Op op_a, Mat<const T> b, Op op_b, T beta) {
  multiply<T>(c, alpha, a, op_a, b, op_b, beta, nullptr);
}

template <class T>
void gemm_bias(Mat<T> c, Mat<const T> a, Op op_a, Mat<const T> b, Op op_b, std::span<const T> bias) {
  assert(std::ssize(bias) == c.cols);
  multiply<T>(c, T{1}, a, op_a, b, op_b, T{0}, bias.data());
}

#define TILEGRAD_INSTANTIATE(T)                                                               \
  template void gemm<T>(Mat<T>, T, Mat<const T>, Op, Mat<const T>, Op, T);                    \
  template void gemm_bias<T>(Mat<T>, Mat<const T>, Op, Mat<const T>, Op, std::span<const T>); \
  template void gemm_serial<T>(Mat<T>, T, Mat<const T>, Op, Mat<const T>, Op, T);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

std::string blas_core() { return openblas_get_corename(); }

}  // namespace tilegrad::kernels

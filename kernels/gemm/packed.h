#pragma once

#include "tilegrad/base/index.h"
#include "tilegrad/kernels/gemm.h"
#include "tilegrad/kernels/round_up.h"
#include "tilegrad/kernels/views.h"

/// The project's own matrix product for float. Inside kernels/ only: gemm() decides who gets it.
namespace tilegrad::kernels::packed {

/// c = alpha * op_a(a) * op_b(b) + beta * c, as gemm() has it, and a bias (N) added to every row if there is one. No size
/// is 0.
struct Product {
  Mat<float> c;
  float alpha = 1;
  Mat<const float> a;
  Op op_a = Op::none;
  Mat<const float> b;
  Op op_b = Op::none;
  float beta = 0;
  const float* bias = nullptr;

  Index inner() const { return op_a == Op::none ? a.cols : a.rows; }

  /// The product that gives these rows and columns of c.
  Product part(Index row, Index rows, Index col, Index cols) const;
  /// These terms of all sums, to be added to what the terms before them gave. The last ones bring the bias.
  Product terms(Index first, Index n) const;
};

/// What stays in which cache, for one SIMD target. A tile (rows, cols) of c is summed up in registers over
/// `inner` terms of every sum. Meanwhile
///   a panel (inner, cols) of b fills half of the first-level cache, while the rows of a stream past it; with AVX-512 it
///   is three times as large and comes from the second level, since products are so fast there that more passes over
///   c cost more; a sum of up to one and a half times `inner` terms is not cut, for the same reason;
///   a block (block_rows, inner) of a, packed or where it lies, fills a quarter of the second-level cache, while panels
///   and c stream past it;
///   a block of b, at most 2 MiB, lies packed in the third level, for all threads.
/// `inner` decides where sums are cut, and so how they are rounded: it follows from the vectors alone, for
/// the 32 KiB that every processor has. The others decide about speed alone.
struct Blocking {
  Index rows;
  Index cols;
  Index inner;
  Index block_rows;

  /// Terms in one part of sums of n terms; the parts are nearly equal.
  Index part(Index n) const { return 2 * n <= 3 * inner ? n : ceil_div(n, ceil_div(n, inner)); }
};
Blocking blocking_for(Index tile_rows, Index tile_cols);

/// The block of b that is packed at once: terms of the sums and columns of c, whole parts and whole panels.
struct BlockOfB {
  Index terms, cols;
};
BlockOfB block_of_b(const Product& p, const Blocking& blocking);

/// Whether a is packed as well, as slivers of one tile's rows. A transposed a is, since a tile would take a cache line from
/// each of its rows to read a few elements.
inline bool packs_a(const Product& p) { return p.op_a == Op::transpose; }

/// Floats from one sliver (terms, rows) to the next. A line is left between them, since those at multiples of 4096 bytes
/// would have to share the same few places of a cache.
inline Index sliver_stride(Index terms, Index rows) { return terms * rows + 16; }

/// How c is cut into tasks: by its shape alone.
struct Pieces {
  Index rows, cols;              // of c in one task
  Index row_pieces, col_pieces;  // tasks

  Index tasks() const { return row_pieces * col_pieces; }
};
Pieces cut(const Product& p, const Blocking& blocking);

/// The SIMD targets on which these products were compared with OpenBLAS. It has kernels for older processors, too, which
/// Highway's plain C++ is no match for.
enum class Target { avx2, avx512, other };
/// That of this processor.
Target target();

/// Computes the product on all threads. The result has the same bits for every number of threads.
void multiply(const Product& p);

}  // namespace tilegrad::kernels::packed

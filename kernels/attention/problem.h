#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/parallel.h"

/// What naive and flash attention share: who sees whom, and scratch memory. Private to kernels/.
namespace tilegrad::kernels {

inline Index ceil_div(Index n, Index d) { return (n + d - 1) / d; }

/// Consecutive queries or keys [begin, end); empty if end ≤ begin.
struct Range {
  Index begin, end;
  bool empty() const { return end <= begin; }
  Index size() const { return end - begin; }
};

/// Queries [q0, q0 + tq) and keys [k0, k0 + tk) of batch row b that may see each other: a whole batch row,
/// cut at its own key length, or one of the packed sequences.
///
/// Query i stands at key position i + shift and sees the keys [i + shift − left, i + shift + right]. Both
/// ends rise with i. All masks but the boolean one have this form, so a tile is wholly seen if its first and
/// last query see all of it.
struct Sequence {
  Index b, q0, tq, k0, tk;
  Index shift;
  Index left, right;

  Range keys() const { return {k0, k0 + tk}; }
  Range queries() const { return {q0, q0 + tq}; }

  /// The keys that query i sees.
  Range keys_of(Index i) const {
    return {std::clamp(i + shift - left, k0, k0 + tk), std::clamp(i + shift + right + 1, k0, k0 + tk)};
  }
  /// The keys that some of these queries see.
  Range keys_of(Range q) const { return {keys_of(q.begin).begin, keys_of(q.end - 1).end}; }
  /// The queries that see some of these keys.
  Range queries_of(Range k) const {
    return {std::clamp(k.begin - right - shift, q0, q0 + tq), std::clamp(k.end + left - shift, q0, q0 + tq)};
  }
  /// Whether each of the queries sees each of the keys.
  bool sees_all(Range q, Range k) const {
    return keys_of(q.end - 1).begin <= k.begin && keys_of(q.begin).end >= k.end;
  }
};

/// The sizes and settings of one call.
template <class T>
struct AttentionProblem {
  using Accum = Compute<T>;

  AttentionInputs<T> in;
  AttentionOptions options;
  Index batch, tq, tk, heads, kv_heads, dim, dim_v;
  double scale, softcap;  // softcap 0: none
  std::vector<Sequence> sequences;

  AttentionProblem(const AttentionInputs<T>& in_, const AttentionOptions& options_)
      : in(in_),
        options(options_),
        batch(in.q.batch),
        tq(in.q.time),
        tk(in.k.time),
        heads(in.q.heads),
        kv_heads(in.k.heads),
        dim(in.q.dim),
        dim_v(in.v.dim),
        scale(options.scale.value_or(1 / std::sqrt(static_cast<double>(in.q.dim)))),
        softcap(options.softcap.value_or(0)) {
    assert(in.k.dim == dim && in.v.time == tk && in.v.heads == kv_heads);
    assert(in.k.batch == batch && in.v.batch == batch && heads % kv_heads == 0);
    assert(in.cu_q.size() == in.cu_k.size() && (in.cu_q.empty() || (batch == 1 && in.k_lengths.empty())));
    find_sequences();
  }

  /// The logit of head h's sink; −inf if there are none.
  Accum sink(Index h) const { return in.sinks.empty() ? -kInfinity : in.sinks[static_cast<std::size_t>(h)]; }
  /// Query heads that share a key/value head.
  Index group() const { return heads / kv_heads; }
  /// Where row (b, h, i) stands in lse (B, Hq, Tq).
  Index row(Index b, Index h, Index i) const { return (b * heads + h) * tq + i; }
  /// Whether scores are scaled products (so the largest product has the largest score), masked by ranges
  /// alone, and no probability is dropped: the kernels then skip all steps between the products.
  bool plain() const {
    return scale > 0 && softcap == 0 && !in.bias && !in.mask && in.alibi.empty() && options.dropout == 0;
  }
  /// Queries of the longest sequence.
  Index longest_queries() const {
    Index longest = 0;
    for (const Sequence& s : sequences) longest = std::max(longest, s.tq);
    return longest;
  }
  /// Whether each key and value is read for a few rows only, as when a model generates. Then it takes longer
  /// to read K and V than to multiply.
  bool decodes() const {
    constexpr Index kFewRows = 8;
    return longest_queries() * group() <= kFewRows;
  }
  /// Whether query i sees key j of its sequence.
  bool sees(const Sequence& s, Index h, Index i, Index j) const {
    const Range keys = s.keys_of(i);
    return keys.begin <= j && j < keys.end && (!in.mask || in.mask.row(s.b, h, i)[j] != 0);
  }
  /// Whether query i sees no key of its sequence; a bias of −inf hides a key as the mask does. (Scores that
  /// are all −inf for another reason come from an Inf in q or k and have no softmax.)
  bool blind(const Sequence& s, Index h, Index i) const {
    const Range keys = s.keys_of(i);
    for (Index j = keys.begin; j < keys.end; ++j) {
      const bool hidden_by_bias = in.bias && in.bias.row(s.b, h, i)[j] == -kInfinity;
      if (!hidden_by_bias && sees(s, h, i, j)) return false;
    }
    return true;
  }

  /// The denominator l = Σ_j exp(s_ij − m) of query i, as the recurrence has found it.
  struct Denominator {
    Accum sum;
    bool blind;  // the query saw no key: its output is 0, whatever its sums are
  };
  Denominator denominator(Accum sum, const Sequence& s, Index h, Index i) const {
    if (sum > 0 && std::isfinite(sum)) return {sum, false};
    // Scores that are all −inf have no softmax; a sink that is Inf or NaN may be all that there is.
    if (!blind(s, h, i)) return {sum == 0 ? std::numeric_limits<Accum>::quiet_NaN() : sum, false};
    return {sum == 0 ? Accum{0} : Accum{1}, true};
  }

 private:
  static constexpr Accum kInfinity = std::numeric_limits<Accum>::infinity();

  void find_sequences() {
    if (in.cu_q.empty()) {
      for (Index b = 0; b < batch; ++b)
        add(b, {0, tq}, {0, in.k_lengths.empty() ? tk : in.k_lengths[static_cast<std::size_t>(b)]});
    }
    for (std::size_t n = 0; n + 1 < in.cu_q.size(); ++n)
      add(0, {in.cu_q[n], in.cu_q[n + 1]}, {in.cu_k[n], in.cu_k[n + 1]});
  }

  void add(Index b, Range q, Range k) {
    constexpr Index kUnbounded = std::numeric_limits<Index>::max() / 4;
    const Index offset = options.align == Align::bottom_right ? k.size() - q.size() : 0;
    const Index left = std::min(options.window.left.value_or(kUnbounded), kUnbounded);
    const Index right = std::min(options.window.right.value_or(kUnbounded), kUnbounded);
    sequences.push_back({.b = b,
                         .q0 = q.begin,
                         .tq = q.size(),
                         .k0 = k.begin,
                         .tk = k.size(),
                         .shift = offset + k.begin - q.begin,
                         .left = left,
                         .right = options.causal ? std::min<Index>(right, 0) : right});
  }
};

/// The sequences cut into blocks of queries or of keys: the unit of work, which depends on shapes alone.
struct Block {
  Index sequence;
  Index number, count;  // of this block in its sequence, and how many that has
  Index first;          // number of the sequence's first block among all
  Range rows;
};

inline std::vector<Block> cut(const std::vector<Sequence>& sequences, Range (Sequence::*rows)() const,
                              Index size) {
  std::vector<Block> blocks;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const Range all = (sequences[s].*rows)();
    const Index count = ceil_div(all.size(), size), first = static_cast<Index>(blocks.size());
    for (Index n = 0; n < count; ++n) {
      const Index begin = all.begin + n * size;
      blocks.push_back({static_cast<Index>(s), n, count, first, {begin, std::min(begin + size, all.end)}});
    }
  }
  return blocks;
}

/// With few queries the keys are cut into parts, which are seen apart and merged at the end: into how many,
/// so that there are enough tasks for any number of threads, and enough keys in a task. It depends on shapes
/// alone, as the result does.
inline Index parts_of_keys(Index tasks, Index keys) {
  constexpr Index kTasks = 16, kKeys = 128;
  return std::clamp<Index>(std::min(kTasks / std::max<Index>(tasks, 1), keys / kKeys), 1, kTasks);
}
inline Range part_of(Range keys, Index part, Index parts) {
  const Index size = std::max<Index>(keys.size(), 0);
  return {keys.begin + size * part / parts, keys.begin + size * (part + 1) / parts};
}

/// Memory for the tasks of one call: each thread has pieces of the given numbers of elements, which all begin
/// at a multiple of 64 bytes.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::initializer_list<Index> pieces) : Scratch(offsets_of(pieces)) {}

  T* piece(int thread, std::size_t index) const {
    return reinterpret_cast<T*>(block_.data()) + thread * offsets_.back() + offsets_[index];
  }

 private:
  explicit Scratch(std::vector<Index> offsets)
      : offsets_(std::move(offsets)),
        block_(threads() * offsets_.back() * static_cast<Index>(sizeof(T)), memory::Category::workspace) {}

  static std::vector<Index> offsets_of(std::initializer_list<Index> pieces) {
    constexpr Index kLine = 64 / sizeof(T);
    std::vector<Index> offsets = {0};
    for (const Index n : pieces) offsets.push_back(offsets.back() + ceil_div(n, kLine) * kLine);
    return offsets;
  }

  std::vector<Index> offsets_;  // of every piece, and of the next thread's first
  memory::Block block_;
};

}  // namespace tilegrad::kernels

// What stands between the product Q Kᵀ and the probabilities: softcap, bias, ALiBi, masks, dropout; for
// panels whose lanes are queries and for panels whose lanes are keys. Each step is one walk over a panel that
// lies in the first-level cache, and is taken only if its option is set: a tile without options, that no mask
// cuts, never comes here.
#if defined(TILEGRAD_KERNELS_ATTENTION_SCORE_MODS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_SCORE_MODS_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_SCORE_MODS_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_SCORE_MODS_INL_H_
#endif

#include <numbers>

#include "tilegrad/kernels/attention/problem.h"
#include "tilegrad/kernels/attention/stored_rows-inl.h"
#include "tilegrad/kernels/attention/tile-inl.h"
#include "tilegrad/kernels/dropout.h"
#include "tilegrad/kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// Terms of ⟨q_i, k_j⟩ that are summed at once: sums of short sums lose less to rounding, and with 128 terms
// they cost nothing. A gradient that is summed over many queries averages the errors of their scores; with
// few queries the scores themselves must be better.
template <class T>
Index score_part(const AttentionProblem<T>& problem) {
  return problem.tq < kMicroRows ? 16 : 128;
}

// What turns a score into a power of two: exp(x) = 2^(x log₂ e). The scores of a plain problem are products
// that were never scaled. Both passes compute exp(x) from x by the same steps, so that the errors of the
// forward scores, which are in LSE as well, cancel in the probabilities of the backward pass.
template <class T>
T to_log2(const AttentionProblem<T>& problem) {
  return static_cast<T>((problem.no_score_mods() ? problem.scale : 1) * std::numbers::log2e);
}

// x ← f(scale x) with the softcap f. slope gets f', if it is wanted.
template <class T>
HWY_NOINLINE HWY_ATTR void scale_and_cap(T* x, Index rows, const AttentionProblem<T>& problem, T* slope) {
  const Tag<T> d;
  const auto scale = hn::Set(d, static_cast<T>(problem.scale));
  if (problem.softcap == 0) {
    for_each_vector(x, {0, rows}, [&](Index, Index, Vec<T> s) HWY_ATTR { return hn::Mul(s, scale); });
    return;
  }
  const auto cap = hn::Set(d, static_cast<T>(problem.softcap)), one = hn::Set(d, T{1});
  const auto inverse = hn::Set(d, static_cast<T>(1 / problem.softcap));
  for_each_vector(x, {0, rows}, [&](Index i, Index lane, Vec<T> s) HWY_ATTR {
    const auto t = tanh<T>(hn::Mul(hn::Mul(s, scale), inverse));
    if (slope != nullptr) hn::Store(hn::NegMulAdd(t, t, one), d, panel_row(slope, i) + lane);
    return hn::Mul(t, cap);
  });
}

// ---- Panels (keys, lanes = rows of the tile).

template <class T>
struct QueryLanes {
  const AttentionProblem<T>& problem;
  T* aux;  // (keys, panel)
  T* row;  // (keys)

  // S from the product Q Kᵀ, −∞ where a query does not see a key.
  HWY_ATTR void apply(T* s, const Tile& tile) const {
    if (!problem.no_score_mods()) scale_and_cap<T>(s, tile.keys.size(), problem, nullptr);
    if (problem.bias) add_bias(s, tile);
    if (!problem.alibi.empty()) add_alibi(s, tile);
    if (problem.mask) apply_mask(s, tile);
    if (tile.is_partial()) apply_ranges(s, tile);
  }

  // P = P ⊙ M
  HWY_ATTR void drop(T* p, const Tile& tile) const {
    tile.for_each_row([&](Index lane, Index h, Index i) {
      dropout_factors(row, tile.keys.begin, tile.keys.size(), problem.row(tile.b(), h, i),
                      problem.options.dropout, problem.options.dropout_key);
      for (Index j = 0; j < tile.keys.size(); ++j) panel_row(aux, j)[lane] = row[j];
    });
    for_each_vector(p, {0, tile.keys.size()}, [&](Index j, Index lane, Vec<T> x) HWY_ATTR {
      return hn::Mul(x, hn::Load(Tag<T>(), panel_row(aux, j) + lane));
    });
  }

 private:
  HWY_ATTR void add_bias(T* s, const Tile& tile) const {
    for (Index n = 0; n < tile.heads; ++n) {
      const T* first = problem.bias.row(tile.b(), tile.h + n, tile.queries.begin) + tile.keys.begin;
      transpose(aux + n * tile.queries.size(), kPanel<T>, first, problem.bias.stride_q, tile.queries.size(),
                tile.keys.size());
    }
    for_each_vector(s, {0, tile.keys.size()}, [&](Index j, Index lane, Vec<T> x) HWY_ATTR {
      return hn::Add(x, hn::Load(Tag<T>(), panel_row(aux, j) + lane));
    });
  }

  HWY_ATTR void add_alibi(T* s, const Tile& tile) const {
    const Tag<T> d;
    HWY_ALIGN T neg_slope[kPanel<T>] = {},
                position[kPanel<T>] = {};  // of the query, counted from the first key
    tile.for_each_row([&](Index lane, Index h, Index i) {
      neg_slope[lane] = -problem.alibi[h];
      position[lane] = static_cast<T>(i + tile.sequence->shift - tile.keys.begin);
    });
    for_each_vector(s, {0, tile.keys.size()}, [&](Index j, Index lane, Vec<T> x) HWY_ATTR {
      const auto distance = hn::Abs(hn::Sub(hn::Load(d, position + lane), hn::Set(d, static_cast<T>(j))));
      return hn::MulAdd(hn::Load(d, neg_slope + lane), distance, x);
    });
  }

  HWY_ATTR void apply_mask(T* s, const Tile& tile) const {
    const Tag<T> d;
    const auto nothing = hn::Set(d, -std::numeric_limits<T>::infinity());
    tile.for_each_row([&](Index lane, Index h, Index i) {
      const std::uint8_t* seen = problem.mask.row(tile.b(), h, i) + tile.keys.begin;
      for (Index j = 0; j < tile.keys.size(); ++j) panel_row(aux, j)[lane] = seen[j] != 0 ? T{1} : T{0};
    });
    for_each_vector(s, {0, tile.keys.size()}, [&](Index j, Index lane, Vec<T> x) HWY_ATTR {
      return hn::IfThenElse(hn::Eq(hn::Load(d, panel_row(aux, j) + lane), hn::Zero(d)), nothing, x);
    });
  }

  HWY_ATTR void apply_ranges(T* s, const Tile& tile) const {
    const LaneMask<T> seen(tile);
    for_each_vector(s, {0, tile.keys.size()}, [&](Index j, Index lane, Vec<T> x) HWY_ATTR {
      return seen.masks_any(j) ? seen.mask(j, lane, x) : x;
    });
  }
};

// ---- Panels (rows of the tile, lanes = keys).

// The first n of a panel's columns from x, and anything after them.
template <class T>
HWY_INLINE const T* padded(const T* x, Index n, T* memory) {
  if (n == kPanel<T>) return x;
  std::copy_n(x, n, memory);
  return memory;
}

template <class T>
struct KeyLanes {
  const AttentionProblem<T>& problem;
  T* slope;  // (rows, panel): the derivative of the softcap, if it is wanted
  T* keep;   // (rows, panel): M

  // S from the product Q Kᵀ, not yet masked.
  HWY_ATTR void apply(T* s, const Tile& tile) const {
    if (!problem.no_score_mods()) scale_and_cap(s, tile.rows(), problem, slope);
    if (problem.bias) add_bias(s, tile);
    if (!problem.alibi.empty()) add_alibi(s, tile);
  }

  // dS = P ⊙ (M ⊙ dP − delta), in place of dP: the gradient that arrives at the masked, biased score.
  HWY_ATTR void gradients(T* ds, const T* p, const T* delta, const Tile& tile) const {
    const Tag<T> d;
    const bool drops = problem.options.dropout > 0;
    for_each_vector(ds, {0, tile.rows()}, [&](Index i, Index lane, Vec<T> x) HWY_ATTR {
      if (drops) x = hn::Mul(x, hn::Load(d, panel_row(keep, i) + lane));
      return hn::Mul(hn::Sub(x, hn::Set(d, delta[i])), hn::Load(d, panel_row(p, i) + lane));
    });
  }

  // From the gradient of the score to that of the product Q Kᵀ: through softcap and scale.
  HWY_ATTR void through_scale(T* ds, const Tile& tile) const {
    const Tag<T> d;
    const auto scale = hn::Set(d, static_cast<T>(problem.scale));
    const bool capped = problem.softcap > 0;
    for_each_vector(ds, {0, tile.rows()}, [&](Index i, Index lane, Vec<T> x) HWY_ATTR {
      if (capped) x = hn::Mul(x, hn::Load(d, panel_row(slope, i) + lane));
      return hn::Mul(x, scale);
    });
  }

  // Where a query does not see a key, x = value, whatever stands there.
  HWY_ATTR void mask_out(T* x, const Tile& tile, T value = 0) const {
    if (problem.mask) mask_out_by_mask(x, tile, value);
    if (tile.is_partial()) mask_out_by_range(x, tile, value);
  }

  // M
  HWY_ATTR void draw_keep(const Tile& tile) const {
    tile.for_each_row([&](Index row, Index h, Index i) {
      dropout_factors(panel_row(keep, row), tile.keys.begin, tile.keys.size(), problem.row(tile.b(), h, i),
                      problem.options.dropout, problem.options.dropout_key);
    });
  }
  // P = P ⊙ M
  HWY_ATTR void drop(T* p, const Tile& tile) const {
    for_each_vector(p, {0, tile.rows()}, [&](Index i, Index lane, Vec<T> x) HWY_ATTR {
      return hn::Mul(x, hn::Load(Tag<T>(), panel_row(keep, i) + lane));
    });
  }

 private:
  HWY_ATTR void add_bias(T* s, const Tile& tile) const {
    const Tag<T> d;
    T memory[kPanel<T>] = {};
    tile.for_each_row([&](Index row, Index h, Index i) HWY_ATTR {
      const T* bias = padded(problem.bias.row(tile.b(), h, i) + tile.keys.begin, tile.keys.size(), memory);
      for_each_vector(s, {row, row + 1}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
        return hn::Add(x, hn::LoadU(d, bias + lane));
      });
    });
  }

  HWY_ATTR void add_alibi(T* s, const Tile& tile) const {
    const Tag<T> d;
    tile.for_each_row([&](Index row, Index h, Index i) HWY_ATTR {
      const auto neg_slope = hn::Set(d, -problem.alibi[h]);
      for_each_vector(s, {row, row + 1}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
        const Index distance = tile.keys.begin + lane - (i + tile.sequence->shift);
        return hn::MulAdd(neg_slope, hn::Abs(hn::Iota(d, static_cast<T>(distance))), x);
      });
    });
  }

  HWY_ATTR void mask_out_by_mask(T* x, const Tile& tile, T value) const {
    const Tag<T> d;
    const auto masked = hn::Set(d, value);
    T seen[kPanel<T>] = {};
    tile.for_each_row([&](Index row, Index h, Index i) HWY_ATTR {
      const std::uint8_t* mask = problem.mask.row(tile.b(), h, i) + tile.keys.begin;
      for (Index j = 0; j < tile.keys.size(); ++j) seen[j] = mask[j] != 0 ? T{1} : T{0};
      for_each_vector(x, {row, row + 1}, [&](Index, Index lane, Vec<T> v) HWY_ATTR {
        return hn::IfThenElse(hn::Eq(hn::LoadU(d, seen + lane), hn::Zero(d)), masked, v);
      });
    });
  }

  HWY_ATTR void mask_out_by_range(T* x, const Tile& tile, T value) const {
    const Tag<T> d;
    const auto masked = hn::Set(d, value);
    tile.for_each_row([&](Index row, Index, Index i) HWY_ATTR {
      const Range keys = tile.sequence->keys_of(i);
      if (keys.begin <= tile.keys.begin && keys.end >= tile.keys.end) return;
      const auto begin = hn::Set(d, static_cast<T>(tile.local(keys.begin)));
      const auto end = hn::Set(d, static_cast<T>(tile.local(keys.end)));
      for_each_vector(x, {row, row + 1}, [&](Index, Index lane, Vec<T> v) HWY_ATTR {
        const auto key = hn::Iota(d, static_cast<T>(lane));
        return hn::IfThenElse(hn::And(hn::Ge(key, begin), hn::Lt(key, end)), v, masked);
      });
    });
  }
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

// Flash attention, forward: what a tile of keys adds to the output of a panel of queries. For one SIMD
// target. The essay is in flash_forward-inl.h.
#if defined(TILEGRAD_KERNELS_ATTENTION_FORWARD_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_FORWARD_TILE_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_FORWARD_TILE_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_FORWARD_TILE_INL_H_
#endif

#include "tilegrad/kernels/attention/masked_products-inl.h"
#include "tilegrad/kernels/attention/masked_products.h"
#include "tilegrad/kernels/attention/online_softmax-inl.h"
#include "tilegrad/kernels/attention/stages.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

// A thread's memory. The copied pieces are for a tile's keys and values if they do not lie well: see is_copied(). The
// wide one is for the rows of a panel that are stored in fewer bits than T.
template <class T>
struct ForwardPieces {
  T *q, *states, *scores, *aux, *row, *copied_k, *copied_v, *wide_rows;
  StageMarks stages;
};

// One panel of rows (the queries of a head, or of several), with the state of the recurrence.
template <class T>
struct QueryPanel {
  Tile tile;  // its keys are those that some of the queries see
  T* q;       // (D, panel): Qᵀ
  T* o;       // (Dv, panel): Oᵀ
  T* max;     // (panel): m
  T* sum;     // (panel): l
};

template <class T>
class ForwardTile {
 public:
  explicit ForwardTile(const AttentionProblem<T>& problem) : problem_(problem), c_(to_log2(problem)) {}

  // m, l and O as they are with the keys of the tile.
  HWY_ATTR void add_keys(const QueryPanel<T>& p, const Tile& tile, Mat<const T> k, Mat<const T> v,
                         const ForwardPieces<T>& w) const {
    const QueryLanes<T> scores = {problem_, w.aux, w.row};
    T* s = w.scores;
    const Tag<T> d;
    const auto old0 = hn::Load(d, p.max), old1 = hn::Load(d, p.max + kLanes<T>);
    multiply_keys(p, tile, k, scores, s);
    w.stages.end(Stage::scores);
    const Rescale rescale = exponentiate(p, tile.keys.size(), old0, old1, s);
    if (problem_.options.dropout > 0) scores.drop(s, tile);
    w.stages.end(Stage::softmax);
    if (meets_bad_values(tile, v)) {
      for_each_vector(p.o, {0, v.cols}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
        return hn::Mul(x, lane == 0 ? rescale.alpha0 : rescale.alpha1);
      });
      add_visible_values(p, tile, s, v);
    } else {
      add_values(p, tile, s, v, rescale.alpha0, rescale.alpha1);
    }
    w.stages.end(Stage::values);
  }

  // Adds the keys of another split, whose state lies `distance` further on.
  HWY_ATTR void merge(const QueryPanel<T>& p, Index distance) const {
    const Tag<T> d;
    for (Index lane = 0; lane < p.tile.rows(); lane += kLanes<T>) {
      T *max = p.max + lane, *sum = p.sum + lane;
      const auto weights = merge_statistics<T>(max, sum, max + distance, sum + distance, c_);
      for (Index i = 0; i < problem_.dim_v; ++i) {
        T* o = panel_row(p.o, i) + lane;
        hn::Store(weights.merge(hn::Load(d, o), hn::Load(d, o + distance)), d, o);
      }
    }
  }

 private:
  // Sums of sums lose less to rounding than one long sum.
  static constexpr Index kSumRows = 16;

  // What a tile of keys makes of the old sums: α of the panel's two vectors.
  struct Rescale {
    Vec<T> alpha0, alpha1;
  };

  // Sᵀ = K Qᵀ with score mods and masks, and m' = max(m, max S).
  HWY_ATTR void multiply_keys(const QueryPanel<T>& p, const Tile& tile, Mat<const T> k,
                              const QueryLanes<T>& scores, T* s) const {
    const Tag<T> d;
    auto max0 = hn::Load(d, p.max), max1 = hn::Load(d, p.max + kLanes<T>);
    const auto store = [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR {
      store_row(s, j, x0, x1);
      max0 = larger(x0, max0);
      max1 = larger(x1, max1);
    };
    const Index part = score_part(problem_), n = tile.keys.size();
    const RowMajor<T> keys = {k.data, k.stride};
    if (!problem_.no_score_mods()) {
      store_in_parts(s, tile.template keys_by_half<T>(), k.cols, part, keys, p.q);
      scores.apply(s, tile);
      for_stored_rows<T>(s, 0, n, store);
    } else {
      const Range seen = tile.is_partial() ? tile.keys_visible_to_all() : Range{0, n};
      multiply_in_parts<T>(seen.size(), k.cols, part, keys.from_row(seen.begin), p.q,
                           panel_row(s, seen.begin),
                           [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR { store(seen.begin + j, x0, x1); });
      if (seen.size() < n) multiply_masked_keys(seen, p, tile, k, s, store);
    }
    store_row(p.max, 0, max0, max1);
  }

  // Sᵀ for the keys that not all queries see: those before and after `seen`. There are few, so they are stored before
  // they are masked, and finish(j, x0, x1) gets them then.
  template <class F>
  HWY_INLINE void multiply_masked_keys(Range seen, const QueryPanel<T>& p, const Tile& tile, Mat<const T> k,
                                       T* s, F&& finish) const {
    const LaneMask<T> mask(tile);
    const LaneSplit halves = tile.template keys_by_half<T>();
    for (const Range keys : {Range{0, seen.begin}, Range{seen.end, tile.keys.size()}}) {
      store_in_parts(panel_row(s, keys.begin), halves.part(keys.begin, keys.end), k.cols,
                     score_part(problem_), RowMajor<T>{k.row(keys.begin), k.stride}, p.q);
      for_stored_rows<T>(s, keys.begin, keys.end, [&](Index j, Vec<T> x0, Vec<T> x1) HWY_ATTR {
        finish(j, mask.mask(j, 0, x0), mask.mask(j, kLanes<T>, x1));
      });
    }
  }

  // P = exp(S − m') in place of S, and l' = α l + Σ P. Returns α.
  HWY_ATTR Rescale exponentiate(const QueryPanel<T>& p, Index keys, Vec<T> old0, Vec<T> old1, T* s) const {
    const Tag<T> d;
    const Powers<T> powers0(c_, hn::Load(d, p.max)), powers1(c_, hn::Load(d, p.max + kLanes<T>));
    if (HWY_UNLIKELY(powers0.any_large() || powers1.any_large())) {
      for_each_vector(s, {0, keys}, [&](Index, Index lane, Vec<T> x) HWY_ATTR {
        return lane == 0 ? powers0.rebase(x) : powers1.rebase(x);
      });
    }
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    for (Index begin = 0; begin < keys; begin += kSumRows) {
      auto part0 = hn::Zero(d), part1 = hn::Zero(d);
      for (Index j = begin; j < std::min(begin + kSumRows, keys); ++j) {
        const auto p0 = powers0.of(hn::Load(d, panel_row(s, j)));
        const auto p1 = powers1.of(hn::Load(d, panel_row(s, j) + kLanes<T>));
        store_row(s, j, p0, p1);
        part0 = hn::Add(part0, p0);
        part1 = hn::Add(part1, p1);
      }
      sum0 = hn::Add(sum0, part0);
      sum1 = hn::Add(sum1, part1);
    }
    const Rescale old = {powers0.of(powers0.rebase(old0)), powers1.of(powers1.rebase(old1))};
    store_row(p.sum, 0, hn::MulAdd(old.alpha0, hn::Load(d, p.sum), sum0),
              hn::MulAdd(old.alpha1, hn::Load(d, p.sum + kLanes<T>), sum1));
    return old;
  }

  // Oᵀ = α Oᵀ + Vᵀ Pᵀ
  HWY_ATTR void add_values(const QueryPanel<T>& p, const Tile& tile, const T* probabilities, Mat<const T> v,
                           Vec<T> alpha0, Vec<T> alpha1) const {
    const Tag<T> d;
    const ColMajor<T> values = {v.data, v.stride};
    const LaneSplit keys = tile.template keys_by_half<T>();
    for_row_blocks(v.cols, [&](Index c, auto size) HWY_ATTR {
      multiply_block<T, size(), AllLanes>(keys, values.from_row(c), probabilities,
                                          static_cast<const T*>(nullptr),
                                          [&](Index i, Vec<T> x0, Vec<T> x1) HWY_ATTR {
                                            const T* row = panel_row(p.o, c + i);
                                            store_row(p.o, c + i, hn::MulAdd(alpha0, hn::Load(d, row), x0),
                                                      hn::MulAdd(alpha1, hn::Load(d, row + kLanes<T>), x1));
                                          });
    });
  }

  // Whether a value that some row does not see holds NaN or Inf: see masked_products.h.
  HWY_ATTR bool meets_bad_values(const Tile& tile, Mat<const T> v) const {
    if (problem_.mask) return !all_finite(v);
    if (!tile.is_partial()) return false;
    const Range seen = tile.keys_visible_to_all();
    return !all_finite(v.row_block(0, seen.begin)) || !all_finite(v.row_block(seen.end, v.rows - seen.end));
  }
  // Oᵀ += Vᵀ Pᵀ
  void add_visible_values(const QueryPanel<T>& p, const Tile& tile, const T* probabilities,
                          Mat<const T> v) const {
    const Index n = tile.queries.size();
    for (Index head = 0; head < tile.heads; ++head) {
      add_visible(
          problem_, {tile.sequence, tile.h + head, tile.queries, tile.keys}, v.cols,
          [&](Index i, Index, Index c) -> T& { return panel_row(p.o, c)[head * n + i]; },
          [&](Index i, Index j) { return panel_row(probabilities, j)[head * n + i]; },
          [&](Index, Index j, Index c) { return v(j, c); });
    }
  }

  const AttentionProblem<T>& problem_;
  T c_;  // scores are c_ times what panels hold, in units of log 2
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

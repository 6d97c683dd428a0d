// Flash attention, forward, for a query or a few against many keys, as when a model generates with a
// key/value cache. The mathematics is that of flash_forward.cpp, with the same recurrence of m, l and O; but
// each key is multiplied with a row or a few only, so the time goes into reading K and V.
//
// Memory is fastest when it is read in its own order. In a (B, T, H, D) tensor the heads of one key lie side
// by side, so a task has all heads and walks over the keys once: lanes lie along D, the rows of S are all
// queries of all heads, and its columns, the keys, are lanes when softmax is at work.
//
// The keys are split, and the splits are the tasks. Each has its own m, l and O; they are merged at the end, in the
// order of the splits. Into how many is decided by shapes alone, and so are the result's bits.
#include "tilegrad/kernels/attention/flash_decode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_decode.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/score_mods-inl.h"
#include "tilegrad/kernels/attention/workspace.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

// Calls f(key, head, its row of x) in the order of memory.
template <class T, class F>
HWY_INLINE void for_each_key(const HeadsView<const T>& x, Index b, Range keys, F&& f) {
  const T* first = x.data + b * x.stride_b;
  const auto visit = [&](Index j, Index h) HWY_ATTR { f(j, h, first + j * x.stride_t + h * x.stride_h); };
  if (x.stride_h <= x.stride_t) {
    for (Index j = keys.begin; j < keys.end; ++j) {
      for (Index h = 0; h < x.heads; ++h) visit(j, h);
    }
  } else {
    for (Index h = 0; h < x.heads; ++h) {
      for (Index j = keys.begin; j < keys.end; ++j) visit(j, h);
    }
  }
}

// y += a x
template <class T>
HWY_INLINE void add(T* y, T a, const T* x, Index n) {
  const auto va = hn::Set(Tag<T>(), a);
  map(
      y, n, [va](Vec<T> yi, Vec<T> xi) HWY_ATTR { return hn::MulAdd(va, xi, yi); }, static_cast<const T*>(y),
      x);
}

// y *= a
template <class T>
HWY_INLINE void scale(T* y, T a, Index n) {
  const auto va = hn::Set(Tag<T>(), a);
  map(
      y, n, [va](Vec<T> yi) HWY_ATTR { return hn::Mul(va, yi); }, static_cast<const T*>(y));
}

template <class T>
class FlashDecode {
 public:
  FlashDecode(HeadsView<T> out, std::span<T> lse, const AttentionProblem<T>& problem)
      : out_(out),
        lse_(lse),
        problem_(problem),
        c_(to_log2(problem)),
        keys_(problem.options.tiles.keys > 0 ? problem.options.tiles.keys : 128),
        rows_(problem.heads * problem.longest_queries()),
        splits_(num_splits(sequences(), problem.tk)),
        workspace_({{&Pieces::q, rows_ * problem.dim},
                    {&Pieces::scores, ceil_div(keys_, kPanel<T>) * panel_size()},
                    {&Pieces::keep, panel_size()}}),
        states_(sequences() * splits_ * state_size() * Index{sizeof(T)}, memory::Category::workspace) {}

  void run() {
    workspace_.run(sequences() * splits_, [&](Index task, const Pieces& w) {
      attend(problem_.sequences[task / splits_], task % splits_, state(task), w);
    });
    parallel_tasks(sequences(), [&](Index n, int) {
      for (Index split = 1; split < splits_; ++split) merge(state(n * splits_), state(n * splits_ + split));
      finish(problem_.sequences[n], state(n * splits_));
    });
  }

 private:
  struct Pieces {
    T *q, *scores, *keep;
  };

  // What the recurrence knows after some keys.
  struct State {
    T* max;  // (rows): m
    T* sum;  // (rows): l
    T* o;    // (rows, Dv): O
  };

  Index sequences() const { return std::ssize(problem_.sequences); }
  Index panel_size() const { return rows_ * kPanel<T>; }
  Index state_size() const { return ceil_div(rows_ * (problem_.dim_v + 2), kLanes<T>) * kLanes<T>; }
  State state(Index n) const {
    T* max = reinterpret_cast<T*>(states_.data()) + n * state_size();
    return {max, max + rows_, max + 2 * rows_};
  }

  Tile tile_of(const Sequence& s, Range keys) const { return {&s, 0, s.queries(), keys, problem_.heads}; }

  // Lets all queries see one split of the keys. A sink is part of the recurrence once, where the first keys
  // are.
  HWY_ATTR void attend(const Sequence& s, Index split, const State& state, const Pieces& w) const {
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    if (s.tq == 0) return;
    const Range keys = split_of(s.keys_of(s.queries()), split, splits_);
    T* q = w.q;
    tile_of(s, keys).for_each_row([&](Index row, Index h, Index i) {
      std::copy_n(problem_.in.q.head(s.b, h).row(i), problem_.dim, q + row * problem_.dim);
      const T sink = split == 0 ? problem_.sink(h) : kNothing;
      state.max[row] = sink * (std::numbers::log2e_v<T> / c_);
      state.sum[row] = sink == kNothing ? T{0} : T{1};
    });
    std::fill_n(state.o, rows_ * problem_.dim_v, T{0});
    for (Index j = keys.begin; j < keys.end; j += keys_)
      add_keys(state, tile_of(s, {j, std::min(j + keys_, keys.end)}), w);
  }

  HWY_ATTR void add_keys(const State& state, const Tile& tile, const Pieces& w) const {
    multiply_keys(tile, w);
    for_each_panel(tile, w, [&](T* s, const Tile& part) HWY_ATTR { apply(s, part); });
    for (Index row = 0; row < tile.rows(); ++row) exponentiate(state, row, tile, w);
    if (problem_.options.dropout > 0) {
      for_each_panel(tile, w, [&](T* p, const Tile& part) HWY_ATTR {
        const KeyLanes<T> scores = {problem_, nullptr, w.keep};
        scores.draw_keep(part);
        scores.drop(p, part);
      });
    }
    add_values(state, tile, w);
  }

  // The tile's keys in panels (rows, lanes = keys), one after the other.
  template <class F>
  HWY_ATTR void for_each_panel(const Tile& tile, const Pieces& w, F&& f) const {
    T* panel = w.scores;
    for (Index j = tile.keys.begin; j < tile.keys.end; j += kPanel<T>, panel += panel_size()) {
      Tile part = tile;
      part.keys = {j, std::min(j + kPanel<T>, tile.keys.end)};
      f(panel, part);
    }
  }
  // Where row 0 of the tile's key number j stands; the next row is kPanel further.
  T* column(Index j, const Pieces& w) const {
    return w.scores + j / kPanel<T> * panel_size() + j % kPanel<T>;
  }
  // Rows of the heads that share a key/value head follow each other.
  Range rows_of(Index hkv, const Tile& tile) const {
    const Index rows = problem_.group_size() * tile.queries.size();
    return {hkv * rows, (hkv + 1) * rows};
  }

  // S = Q Kᵀ
  HWY_ATTR void multiply_keys(const Tile& tile, const Pieces& w) const {
    const T* q = w.q;
    for_each_key(problem_.in.k, tile.b(), tile.keys, [&](Index j, Index hkv, const T* k) HWY_ATTR {
      const Range rows = rows_of(hkv, tile);
      T* s = column(j - tile.keys.begin, w);
      for (Index row = rows.begin; row < rows.end; ++row)
        s[row * kPanel<T>] = dot(problem_.dim, q + row * problem_.dim, k);
    });
  }

  HWY_ATTR void apply(T* s, const Tile& part) const {
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    const KeyLanes<T> scores = {problem_, nullptr, nullptr};
    scores.apply(s, part);
    scores.mask_out(s, part, kNothing);
    for (Index row = 0; part.keys.size() < kPanel<T> && row < part.rows(); ++row)
      std::fill(panel_row(s, row) + part.keys.size(), panel_row(s, row + 1), kNothing);
  }

  // m' = max(m, max S), P = exp(S − m') in place of S, l and O as they are with m'.
  HWY_ATTR void exponentiate(const State& state, Index row, const Tile& tile, const Pieces& w) const {
    const Tag<T> d;
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    const auto for_each = [&](auto&& f) HWY_ATTR {
      for_each_panel(tile, w, [&](T* s, const Tile&) HWY_ATTR {
        for_each_vector(s, {row, row + 1}, [&](Index, Index, Vec<T> x) HWY_ATTR { return f(x); });
      });
    };
    auto largest = hn::Set(d, state.max[row]), sum = hn::Zero(d);
    for_each([&](Vec<T> x) HWY_ATTR {
      largest = hn::Max(x, largest);
      return x;
    });
    const T old = state.max[row], max = hn::GetLane(hn::MaxOfLanes(d, largest));
    const T shift = max == kNothing ? T{0} : -c_ * max;  // −∞ − (−∞) is no number
    for_each([&](Vec<T> x) HWY_ATTR {
      x = exp2<T>(hn::MulAdd(x, hn::Set(d, c_), hn::Set(d, shift)));
      sum = hn::Add(sum, x);
      return x;
    });
    const T alpha = std::exp2(std::fma(old, c_, shift));
    state.max[row] = max;
    state.sum[row] = std::fma(alpha, state.sum[row], hn::GetLane(hn::SumOfLanes(d, sum)));
    scale(state.o + row * problem_.dim_v, alpha, problem_.dim_v);
  }

  // O += P V. Where a query must not see a value, a probability of 0 does not hide its NaN, since 0 · NaN is
  // NaN.
  HWY_ATTR void add_values(const State& state, const Tile& tile, const Pieces& w) const {
    const bool has_masked_pairs = tile.is_partial() || problem_.in.mask;
    for_each_key(problem_.in.v, tile.b(), tile.keys, [&](Index j, Index hkv, const T* v) HWY_ATTR {
      const Range rows = rows_of(hkv, tile);
      const T* p = column(j - tile.keys.begin, w);
      for (Index row = rows.begin; row < rows.end; ++row) {
        if (has_masked_pairs && p[row * kPanel<T>] == 0 && masked(tile, row, j)) continue;
        add(state.o + row * problem_.dim_v, p[row * kPanel<T>], v, problem_.dim_v);
      }
    });
  }

  bool masked(const Tile& tile, Index row, Index j) const {
    const Index h = row / tile.queries.size(), i = tile.queries.begin + row % tile.queries.size();
    return !problem_.visible(*tile.sequence, h, i, j);
  }

  // Adds the keys of another split to what was seen so far.
  HWY_ATTR void merge(const State& state, const State& other) const {
    for (Index row = 0; row < rows_; ++row) {
      const T max = std::max(state.max[row], other.max[row]);
      const T shift = max == -std::numeric_limits<T>::infinity() ? T{0} : -c_ * max;
      const T a = std::exp2(std::fma(state.max[row], c_, shift));
      const T b = std::exp2(std::fma(other.max[row], c_, shift));
      state.max[row] = max;
      state.sum[row] = a * state.sum[row] + b * other.sum[row];
      T* o = state.o + row * problem_.dim_v;
      scale(o, a, problem_.dim_v);
      add(o, b, other.o + row * problem_.dim_v, problem_.dim_v);
    }
  }

  // O / l, LSE = scale m + log l.
  HWY_ATTR void finish(const Sequence& s, const State& state) const {
    tile_of(s, {}).for_each_row([&](Index row, Index h, Index i) HWY_ATTR {
      const auto [sum, fully_masked] = problem_.denominator(state.sum[row], s, h, i);
      const T* o = state.o + row * problem_.dim_v;
      T* out = out_.head(s.b, h).row(i);
      for (Index c = 0; c < problem_.dim_v; ++c) out[c] = fully_masked ? T{0} : o[c] * (1 / sum);
      const double log2 = static_cast<double>(state.max[row] * c_) + std::log2(static_cast<double>(sum));
      lse_[problem_.row(s.b, h, i)] = static_cast<T>(log2 * std::numbers::ln2);
    });
  }

  HeadsView<T> out_;
  std::span<T> lse_;
  const AttentionProblem<T>& problem_;
  T c_;           // scores are c_ times what panels hold, in units of log 2
  Index keys_;    // in a tile
  Index rows_;    // queries of all heads, in the longest sequence
  Index splits_;  // of the keys
  Workspace<T, Pieces> workspace_;
  memory::Block states_;  // (sequences, splits)
};

void decode_f32(HeadsView<float> out, std::span<float> lse, const AttentionProblem<float>& problem) {
  FlashDecode<float>(out, lse, problem).run();
}
void decode_f64(HeadsView<double> out, std::span<double> lse, const AttentionProblem<double>& problem) {
  FlashDecode<double>(out, lse, problem).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(decode_f32);
HWY_EXPORT(decode_f64);

void flash_decode(HeadsView<float> out, std::span<float> lse, const AttentionProblem<float>& problem) {
  HWY_DYNAMIC_DISPATCH(decode_f32)(out, lse, problem);
}
void flash_decode(HeadsView<double> out, std::span<double> lse, const AttentionProblem<double>& problem) {
  HWY_DYNAMIC_DISPATCH(decode_f64)(out, lse, problem);
}

}  // namespace tilegrad::kernels
#endif

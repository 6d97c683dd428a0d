// Flash attention, forward, for a query or a few against many keys, as when a model generates with a
// key/value cache. The mathematics is that of flash_forward-inl.h, with the same recurrence of m, l and O; but
// each key is multiplied with a row or a few only, so the time goes into reading K and V.
//
// Memory is fastest when it is read in its own order. In a (B, T, H, D) tensor the heads of one key lie side
// by side, so a task has all heads and walks over the keys once: lanes lie along D, the rows of S are all
// queries of all heads, and its columns, the keys, are lanes when softmax is at work.
//
// The keys are split, and the splits are the tasks. Each has its own m, l and O; they are merged at the end,
// in the order of the splits. Into how many is decided by shapes alone, and so are the result's bits.
#include "tilegrad/kernels/attention/flash.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/attention/flash_decode.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/attention/decode_state-inl.h"
#include "tilegrad/kernels/attention/masked_products.h"
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

template <class T>
class FlashDecode {
 public:
  FlashDecode(HeadsView<T> out, std::span<T> lse, const FlashInputs<T>& in,
              const AttentionProblem<T>& problem)
      : out_(out),
        lse_(lse),
        k_(in.k.wide),
        v_(in.v.wide),
        q_(in.q.wide),
        problem_(problem),
        c_(to_log2(problem)),
        schedule_(problem),
        rows_(problem.heads * problem.longest_queries()) {}

  void run() const {
    const Index sequences = std::ssize(problem_.sequences), splits = schedule_.splits();
    const Workspace<T, Pieces> workspace(
        {{&Pieces::q, rows_ * problem_.dim},
         {&Pieces::scores, ceil_div(schedule_.tile_keys(), kPanel<T>) * panel_size()},
         {&Pieces::keep, panel_size()},
         {&Pieces::mine, whole_vectors<T>(rows_)},
         {&Pieces::other, whole_vectors<T>(rows_)}});
    const Index state_size = State::size(rows_, problem_.dim_v);
    const memory::Block states(schedule_.tasks() * state_size * Index{sizeof(T)},
                               memory::Category::workspace);
    const auto state = [&](Index n) {
      return State(reinterpret_cast<T*>(states.data()) + n * state_size, rows_, problem_.dim_v);
    };
    workspace.run(schedule_.tasks(), [&](Index n, const Pieces& w) {
      const DecodeSchedule::Task task = schedule_.task(n);
      attend(*task.sequence, task.keys, task.split == 0, state(n), w);
    });
    workspace.run(sequences, [&](Index n, const Pieces& w) {
      const State all = state(n * splits);
      for (Index split = 1; split < splits; ++split)
        all.merge(state(n * splits + split), c_, w.mine, w.other);
      finish(problem_.sequences[n], all);
      w.stages.end(Stage::store);
    });
  }

 private:
  using State = DecodeState<T>;

  // `mine` and `other` are weights of rows.
  struct Pieces {
    T *q, *scores, *keep, *mine, *other;
    StageMarks stages;
  };

  Index panel_size() const { return rows_ * kPanel<T>; }

  Tile tile_of(const Sequence& s, Range keys) const { return {&s, 0, s.queries(), keys, problem_.heads}; }

  // Processes one split of the keys for all queries.
  HWY_ATTR void attend(const Sequence& s, Range keys, bool first, const State& state, const Pieces& w) const {
    state.clear();
    if (s.tq == 0) return;
    tile_of(s, keys).for_each_row([&](Index row, Index h, Index i) {
      std::copy_n(q_.head(s.b, h).row(i), problem_.dim, w.q + row * problem_.dim);
      start_row(state.max[row], state.sum[row], problem_, c_, h, first);
    });
    w.stages.end(Stage::prepare);
    for (Index j = keys.begin; j < keys.end; j += schedule_.tile_keys())
      add_keys(state, tile_of(s, {j, std::min(j + schedule_.tile_keys(), keys.end)}), w);
  }

  HWY_ATTR void add_keys(const State& state, const Tile& tile, const Pieces& w) const {
    multiply_keys(tile, w);
    for_each_panel(tile, w, [&](T* s, const Tile& part) HWY_ATTR { apply(s, part); });
    w.stages.end(Stage::scores);
    for (Index row = 0; row < tile.rows(); ++row) exponentiate(state, row, tile, w);
    if (problem_.options.dropout > 0) {
      for_each_panel(tile, w, [&](T* p, const Tile& part) HWY_ATTR {
        const KeyLanes<T> scores = {problem_, nullptr, w.keep};
        scores.draw_keep(part);
        scores.drop(p, part);
      });
    }
    w.stages.end(Stage::softmax);
    add_values(state, tile, w);
    w.stages.end(Stage::values);
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
    for_each_key(k_, tile.b(), tile.keys, [&](Index j, Index hkv, const T* k) HWY_ATTR {
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
    const auto for_each = [&](auto&& f) HWY_ATTR {
      for_each_panel(tile, w, [&](T* s, const Tile&) HWY_ATTR {
        for_each_vector(s, {row, row + 1}, [&](Index, Index, Vec<T> x) HWY_ATTR { return f(x); });
      });
    };
    auto largest = hn::Set(d, state.max[row]), sum = hn::Zero(d);
    for_each([&](Vec<T> x) HWY_ATTR {
      largest = larger(x, largest);
      return x;
    });
    const T max = max_of_lanes(d, largest);
    const Powers<T> powers(c_, hn::Set(d, max));
    for_each([&](Vec<T> x) HWY_ATTR {
      x = powers.of(powers.rebase(x));
      sum = hn::Add(sum, x);
      return x;
    });
    const T alpha = hn::GetLane(powers.of(powers.rebase(hn::Set(d, state.max[row]))));
    state.max[row] = max;
    state.sum[row] = std::fma(alpha, state.sum[row], hn::GetLane(hn::SumOfLanes(d, sum)));
    scale_row(state.o + row * problem_.dim_v, alpha, problem_.dim_v);
  }

  // O += P V. Where a query must not see a value, a probability of 0 does not hide its NaN: see
  // masked_products.h.
  HWY_ATTR void add_values(const State& state, const Tile& tile, const Pieces& w) const {
    const bool cut = has_masked_pairs(problem_, {tile.sequence, tile.h, tile.queries, tile.keys});
    for_each_key(v_, tile.b(), tile.keys, [&](Index j, Index hkv, const T* v) HWY_ATTR {
      const Range rows = rows_of(hkv, tile);
      const T* p = column(j - tile.keys.begin, w);
      for (Index row = rows.begin; row < rows.end; ++row) {
        if (cut && p[row * kPanel<T>] == 0 && masked(tile, row, j)) continue;
        add_row(state.o + row * problem_.dim_v, p[row * kPanel<T>], v, problem_.dim_v);
      }
    });
  }

  bool masked(const Tile& tile, Index row, Index j) const {
    const Index h = row / tile.queries.size(), i = tile.queries.begin + row % tile.queries.size();
    return !problem_.visible(*tile.sequence, h, i, j);
  }

  // O / l, LSE = m + log l.
  HWY_ATTR void finish(const Sequence& s, const State& state) const {
    const Tile tile = tile_of(s, {});
    RowEnds<T>(problem_, c_).finish(tile, state.max, state.sum, lse_, [&](Index row) {
      std::fill_n(state.o + row * problem_.dim_v, problem_.dim_v, T{0});
    });
    tile.for_each_row([&](Index row, Index h, Index i) HWY_ATTR {
      const T inverse = hn::GetLane(inverse_of<T>(hn::Set(Tag<T>(), state.sum[row])));
      const T* o = state.o + row * problem_.dim_v;
      T* out = out_.head(s.b, h).row(i);
      for (Index c = 0; c < problem_.dim_v; ++c) out[c] = o[c] * inverse;
    });
  }

  HeadsView<T> out_;
  std::span<T> lse_;
  HeadsView<const T> k_, v_, q_;
  const AttentionProblem<T>& problem_;
  T c_;  // scores are c_ times what panels hold, in units of log 2
  DecodeSchedule schedule_;
  Index rows_;  // queries of all heads, in the longest sequence
};

void decode_f32(HeadsView<float> out, std::span<float> lse, const FlashInputs<float>& in,
                const AttentionProblem<float>& problem) {
  FlashDecode<float>(out, lse, in, problem).run();
}
void decode_f64(HeadsView<double> out, std::span<double> lse, const FlashInputs<double>& in,
                const AttentionProblem<double>& problem) {
  FlashDecode<double>(out, lse, in, problem).run();
}

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

HWY_EXPORT(decode_f32);
HWY_EXPORT(decode_f64);

void flash_decode(HeadsView<float> out, std::span<float> lse, const FlashInputs<float>& in,
                  const AttentionProblem<float>& problem) {
  HWY_DYNAMIC_DISPATCH(decode_f32)(out, lse, in, problem);
}
void flash_decode(HeadsView<double> out, std::span<double> lse, const FlashInputs<double>& in,
                  const AttentionProblem<double>& problem) {
  HWY_DYNAMIC_DISPATCH(decode_f64)(out, lse, in, problem);
}

}  // namespace tilegrad::kernels
#endif

// A tile of the score matrix, and loops over the panels that hold it. For one SIMD target.
#if defined(TILEGRAD_KERNELS_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TILEGRAD_KERNELS_ATTENTION_TILE_INL_H_
#undef TILEGRAD_KERNELS_ATTENTION_TILE_INL_H_
#else
#define TILEGRAD_KERNELS_ATTENTION_TILE_INL_H_
#endif

#include <algorithm>

#include "tilegrad/kernels/attention/schedule.h"
#include "tilegrad/kernels/panels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {

template <class T>
inline constexpr MicroKernel kMicroKernel = {
    .lanes = kPanel<T>, .element_bytes = sizeof(T), .few_registers = kFewRegisters};

// A part of the score matrix: some queries against some keys, for `heads` heads from h on that share a
// key/value head.
struct Tile {
  const Sequence* sequence;
  Index h;
  Range queries, keys;
  Index heads = 1;

  Index b() const { return sequence->b; }
  bool is_partial() const { return !sequence->fully_visible(queries, keys); }
  // Counted from the tile's first key; empty somewhere in the tile if there is none.
  Range keys_visible_to_all() const {
    const Index begin = local(sequence->keys_of(queries.end - 1).begin);
    return {begin, std::max(begin, local(sequence->keys_of(queries.begin).end))};
  }
  // The keys that lanes of the lower and the upper vector see, if lanes are rows of the tile.
  template <class T>
  LaneSplit keys_by_half() const {
    const Index n = keys.size();
    if (rows() <= kLanes<T>) return {n, 0, 0};
    if (heads > 1 || !is_partial()) return {0, n, 0};
    const Index middle = queries.begin + kLanes<T>;
    return halves(local(sequence->keys_of(middle).begin), local(sequence->keys_of(middle - 1).end), n);
  }
  // The queries that see keys of the lower and of the upper vector, if lanes are keys.
  template <class T>
  LaneSplit queries_by_half() const {
    const Index n = queries.size();
    if (keys.size() <= kLanes<T>) return {n, 0, 0};
    if (!is_partial()) return {0, n, 0};
    const Index middle = keys.begin + kLanes<T>;
    const Index upper = sequence->queries_of({middle, keys.end}).begin - queries.begin;
    const Index lower = sequence->queries_of({keys.begin, middle}).end - queries.begin;
    return halves(std::clamp<Index>(upper, 0, n), std::clamp<Index>(lower, 0, n), n);
  }
  // Accum of a key in the tile, or where the tile ends on that side.
  Index local(Index j) const { return std::clamp<Index>(j - keys.begin, 0, keys.size()); }
  // Rows of the score matrix: the queries of one head after those of the other.
  Index rows() const { return heads * queries.size(); }
  // Calls f(row, head, query) for each.
  template <class F>
  HWY_INLINE void for_each_row(F&& f) const {
    Index row = 0;
    for (Index n = h; n < h + heads; ++n) {
      for (Index i = queries.begin; i < queries.end; ++i) f(row++, n, i);
    }
  }

 private:
  // Of n rows, the upper vector matters from `upper` on, and the lower one up to `lower`.
  static LaneSplit halves(Index upper, Index lower, Index n) {
    const Index begin = std::min(upper, lower);
    return {begin, lower - begin, n - lower};
  }
};

// Replaces every row (x0, x1) of a panel by f(row, vector index, x).
template <class T, class F>
HWY_INLINE void for_each_vector(T* panel, Range rows, F&& f) {
  const Tag<T> d;
  for (Index r = rows.begin; r < rows.end; ++r) {
    T* row = panel_row(panel, r);
    for (Index half = 0; half < 2; ++half) {
      T* x = row + half * kLanes<T>;
      hn::Store(f(r, half * kLanes<T>, hn::Load(d, x)), d, x);
    }
  }
}

// Which keys of a tile each row sees, by the masks that are ranges. Keys are counted from the tile's first.
template <class T>
class LaneMask {
 public:
  explicit LaneMask(const Tile& tile) : all_(tile.keys_visible_to_all()) {
    tile.for_each_row([&](Index lane, Index, Index i) {
      const Range keys = tile.sequence->keys_of(i);
      begin_[lane] = static_cast<T>(tile.local(keys.begin));
      end_[lane] = static_cast<T>(tile.local(keys.end));
    });
  }

  // Whether some row does not see key j.
  HWY_INLINE bool masks_any(Index j) const { return j < all_.begin || j >= all_.end; }

  // The scores x of key j in the lanes from `lane` on; −∞ in those that do not see it.
  HWY_INLINE Vec<T> mask(Index j, Index lane, Vec<T> x) const {
    const Tag<T> d;
    const auto key = hn::Set(d, static_cast<T>(j));
    const auto seen = hn::And(hn::Ge(key, hn::Load(d, begin_ + lane)), hn::Lt(key, hn::Load(d, end_ + lane)));
    return hn::IfThenElse(seen, x, hn::Set(d, -std::numeric_limits<T>::infinity()));
  }

 private:
  Range all_;  // the keys that all rows see
  HWY_ALIGN T begin_[kPanel<T>] = {};
  HWY_ALIGN T end_[kPanel<T>] = {};
};

}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

#include "tilegrad/kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

// cos and sin of every angle t · base^(−2j/D) for the positions first ≤ t < end, one row for each: (end − first, D/2).
template <class T>
struct Rotation {
  Index first, end, half;
  double base;
  std::vector<T> cos, sin;

  Rotation(Index first_position, Index end_position, Index half_size, double base_of_angles)
      : first(first_position),
        end(end_position),
        half(half_size),
        base(base_of_angles),
        cos(static_cast<std::size_t>((end - first) * half)),
        sin(cos.size()) {
    for (Index j = 0; j < half; ++j) {
      const double frequency = std::pow(base, -static_cast<double>(j) / static_cast<double>(half));
      for (Index t = first; t < end; ++t) {
        const double angle = static_cast<double>(t) * frequency;
        cos[(t - first) * half + j] = static_cast<T>(std::cos(angle));
        sin[(t - first) * half + j] = static_cast<T>(std::sin(angle));
      }
    }
  }
};

// The angles of these positions. A thread keeps the last ones that it computed, because every layer of a model asks for
// the same, in forward and backward, and a cosine costs more than the rest of rope.
template <class T>
const Rotation<T>& rotation_of(Index first, Index end, Index half, double base) {
  thread_local std::optional<Rotation<T>> kept;
  const bool covers =
      kept && kept->half == half && kept->base == base && kept->first <= first && end <= kept->end;
  if (!covers) kept.emplace(first, end, half, base);
  return *kept;
}

// y (+)= x rotated by the angles, or by their opposites for direction = −1.
template <class T>
void rotate(HeadsView<T> y, Write write, HeadsView<const T> x, Index first_position, double base,
            T direction) {
  const Index half = x.dim / 2;
  const Rotation<T>& rotation = rotation_of<T>(first_position, first_position + x.time, half, base);
  const Index skipped = (first_position - rotation.first) * half;
  const auto rotate_position = [&](Index b, Index t) {
    const T* cos = rotation.cos.data() + skipped + t * half;
    const T* sin = rotation.sin.data() + skipped + t * half;
    for (Index h = 0; h < x.heads; ++h) {
      const T* from = x.data + b * x.stride_b + t * x.stride_t + h * x.stride_h;
      T* to = y.data + b * y.stride_b + t * y.stride_t + h * y.stride_h;
      for (Index j = 0; j < half; ++j) {
        const T first = from[j], second = from[j + half], s = direction * sin[j];
        store(to[j], write, first * cos[j] - second * s);
        store(to[j + half], write, first * s + second * cos[j]);
      }
    }
  };
  constexpr Index kGrain = 16384;
  const Index positions = std::max<Index>(1, kGrain / std::max<Index>(1, x.heads * x.dim));
  parallel_for(x.batch * x.time, positions, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) rotate_position(i / x.time, i % x.time);
  });
}

}  // namespace

template <class T>
void rope(HeadsView<T> y, HeadsView<const T> x, Index first_position, double base) {
  rotate<T>(y, Write::overwrite, x, first_position, base, T{1});
}

template <class T>
void rope_backward(Grad<HeadsView<T>> dx, HeadsView<const T> dy, Index first_position, double base) {
  // forward: y = R x with Rᵀ = R⁻¹
  rotate<T>(dx.to, dx.write, dy, first_position, base, T{-1});
}

#define TILEGRAD_INSTANTIATE(T)                                           \
  template void rope<T>(HeadsView<T>, HeadsView<const T>, Index, double); \
  template void rope_backward<T>(Grad<HeadsView<T>>, HeadsView<const T>, Index, double);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels

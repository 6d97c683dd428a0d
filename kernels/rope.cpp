#include "tilegrad/kernels/rope.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

// cos and sin of every angle (t + first_position) · base^(−2j/D), one row for each position: (T, D/2) each.
template <class T>
struct Rotation {
  std::vector<T> cos, sin;

  Rotation(Index time, Index half, Index first_position, double base)
      : cos(static_cast<std::size_t>(time * half)), sin(cos.size()) {
    for (Index j = 0; j < half; ++j) {
      const double frequency = std::pow(base, -static_cast<double>(j) / static_cast<double>(half));
      for (Index t = 0; t < time; ++t) {
        const double angle = static_cast<double>(t + first_position) * frequency;
        cos[t * half + j] = static_cast<T>(std::cos(angle));
        sin[t * half + j] = static_cast<T>(std::sin(angle));
      }
    }
  }
};

// y (+)= x rotated by the angles, or by their opposites for direction = −1.
template <class T>
void rotate(HeadsView<T> y, Write write, HeadsView<const T> x, Index first_position, double base,
            T direction) {
  const Index half = x.dim / 2;
  const Rotation<T> rotation(x.time, half, first_position, base);
  const auto rotate_position = [&](Index b, Index t) {
    const T* cos = rotation.cos.data() + t * half;
    const T* sin = rotation.sin.data() + t * half;
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

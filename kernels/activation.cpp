#include "tilegrad/kernels/activation.h"

#include "tilegrad/kernels/parallel.h"

#ifndef TILEGRAD_KERNELS_ACTIVATION_TABLE  // this file is compiled once for every SIMD target
#define TILEGRAD_KERNELS_ACTIVATION_TABLE
namespace tilegrad::kernels {

// What each SIMD target provides: loops over one piece.
template <class T>
struct ActivationTable {
  using Map = void (*)(T* y, Index n, const T* x);
  using MapBackward = void (*)(T* dx, Write write, Index n, const T* dy, const T* x);
  Map relu, gelu, silu;
  MapBackward relu_backward, gelu_backward, silu_backward;
  void (*swiglu)(T* y, Index n, const T* gate, const T* up);
  void (*swiglu_backward_gate)(T* dgate, Write write, Index n, const T* dy, const T* gate, const T* up);
  MapBackward swiglu_backward_up;
};

}  // namespace tilegrad::kernels
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tilegrad/kernels/activation.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "tilegrad/kernels/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tilegrad::kernels::HWY_NAMESPACE {
namespace {

template <class T>
void relu(T* y, Index n, const T* x) {
  // Not Max(x, 0), which would turn NaN into 0.
  map(
      y, n, [](auto v) { return hn::IfThenZeroElse(hn::Lt(v, hn::Zero(Tag<T>())), v); }, x);
}

template <class T>
void relu_backward(T* dx, Write write, Index n, const T* dy, const T* x) {
  // forward: y = x > 0 ? x : 0
  map_into(
      dx, write, n, [](auto g, auto v) { return hn::IfThenZeroElse(hn::Le(v, hn::Zero(Tag<T>())), g); }, dy,
      x);
}

// With u = √(2/π) (x + 0.044715 x³), (1 + tanh u)/2 = σ(2u): one exponential instead of a tanh.
template <class T>
struct Gelu {
  static constexpr T kCubic = T(0.044715);
  static constexpr T kTwice = T(2 * 0.7978845608028653558798921198687);  // 2 √(2/π)

  static HWY_INLINE Vec<T> gate(Vec<T> x) {
    const Tag<T> d;
    const auto x2 = hn::Mul(x, x);
    const auto poly = hn::MulAdd(hn::Mul(x2, x), hn::Set(d, kCubic), x);
    return sigmoid(hn::Mul(hn::Set(d, kTwice), poly));
  }
  // d(2u)/dx = 2 √(2/π) (1 + 3 · 0.044715 x²)
  static HWY_INLINE Vec<T> slope(Vec<T> x) {
    const Tag<T> d;
    const auto poly = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 3 * kCubic), hn::Set(d, T(1)));
    return hn::Mul(hn::Set(d, kTwice), poly);
  }
};

template <class T>
void gelu(T* y, Index n, const T* x) {
  map(
      y, n, [](auto v) { return hn::Mul(v, Gelu<T>::gate(v)); }, x);
}

template <class T>
void gelu_backward(T* dx, Write write, Index n, const T* dy, const T* x) {
  // forward: y = x s, s = σ(2u);  dy/dx = s + x s (1 − s) d(2u)/dx
  const auto step = [](auto g, auto v) {
    const auto s = Gelu<T>::gate(v);
    const auto other = hn::Sub(hn::Set(Tag<T>(), T(1)), s);
    const auto bend = hn::Mul(hn::Mul(v, s), hn::Mul(other, Gelu<T>::slope(v)));
    // Far from 0 one factor is 0 and another may be infinite.
    const auto rest = hn::IfThenZeroElse(hn::Eq(hn::Mul(s, other), hn::Zero(Tag<T>())), bend);
    return hn::Mul(g, hn::Add(s, rest));
  };
  map_into(dx, write, n, step, dy, x);
}

template <class T>
void silu(T* y, Index n, const T* x) {
  map(
      y, n, [](auto v) { return hn::Mul(v, sigmoid(v)); }, x);
}

// silu'(x) = s + x s (1 − s), s = σ(x)
template <class V>
HWY_INLINE V silu_slope(V x, V s) {
  const auto one = hn::Set(hn::DFromV<V>(), hn::TFromV<V>(1));
  return hn::MulAdd(hn::Mul(x, s), hn::Sub(one, s), s);
}

template <class T>
void silu_backward(T* dx, Write write, Index n, const T* dy, const T* x) {
  // forward: y = x σ(x)
  map_into(
      dx, write, n, [](auto g, auto v) { return hn::Mul(g, silu_slope(v, sigmoid(v))); }, dy, x);
}

template <class T>
void swiglu(T* y, Index n, const T* gate, const T* up) {
  map(
      y, n, [](auto g, auto u) { return hn::Mul(hn::Mul(g, sigmoid(g)), u); }, gate, up);
}

template <class T>
void swiglu_backward_gate(T* dgate, Write write, Index n, const T* dy, const T* gate, const T* up) {
  // forward: y = silu(gate) ⊙ up
  const auto step = [](auto dv, auto g, auto u) {
    return hn::Mul(hn::Mul(dv, u), silu_slope(g, sigmoid(g)));
  };
  map_into(dgate, write, n, step, dy, gate, up);
}

template <class T>
void swiglu_backward_up(T* dup, Write write, Index n, const T* dy, const T* gate) {
  map_into(
      dup, write, n, [](auto dv, auto g) { return hn::Mul(dv, hn::Mul(g, sigmoid(g))); }, dy, gate);
}

template <class T>
constexpr ActivationTable<T> kTable = {.relu = relu<T>,
                                       .gelu = gelu<T>,
                                       .silu = silu<T>,
                                       .relu_backward = relu_backward<T>,
                                       .gelu_backward = gelu_backward<T>,
                                       .silu_backward = silu_backward<T>,
                                       .swiglu = swiglu<T>,
                                       .swiglu_backward_gate = swiglu_backward_gate<T>,
                                       .swiglu_backward_up = swiglu_backward_up<T>};
TILEGRAD_TARGET_TABLE(ActivationTable)

}  // namespace
}  // namespace tilegrad::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tilegrad::kernels {

namespace {

TILEGRAD_BEST_TABLE(ActivationTable)

constexpr Index kGrain = 16384;  // at one exponential per element, worth waking a thread

template <class T>
void forward(typename ActivationTable<T>::Map map, std::span<T> y, std::span<const T> x) {
  parallel_for(std::ssize(y), kGrain,
               [&](Index begin, Index end) { map(y.data() + begin, end - begin, x.data() + begin); });
}

template <class T>
void backward(typename ActivationTable<T>::MapBackward map, Grad<std::span<T>> dx, std::span<const T> dy,
              std::span<const T> x) {
  parallel_for(std::ssize(dx.to), kGrain, [&](Index begin, Index end) {
    map(dx.to.data() + begin, dx.write, end - begin, dy.data() + begin, x.data() + begin);
  });
}

}  // namespace

template <class T>
void relu(std::span<T> y, std::span<const T> x) {
  forward<T>(best<T>().relu, y, x);
}
template <class T>
void relu_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> x) {
  backward<T>(best<T>().relu_backward, dx, dy, x);
}

template <class T>
void gelu(std::span<T> y, std::span<const T> x) {
  forward<T>(best<T>().gelu, y, x);
}
template <class T>
void gelu_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> x) {
  backward<T>(best<T>().gelu_backward, dx, dy, x);
}

template <class T>
void silu(std::span<T> y, std::span<const T> x) {
  forward<T>(best<T>().silu, y, x);
}
template <class T>
void silu_backward(Grad<std::span<T>> dx, std::span<const T> dy, std::span<const T> x) {
  backward<T>(best<T>().silu_backward, dx, dy, x);
}

template <class T>
void swiglu(std::span<T> y, std::span<const T> gate, std::span<const T> up) {
  parallel_for(std::ssize(y), kGrain, [&](Index begin, Index end) {
    best<T>().swiglu(y.data() + begin, end - begin, gate.data() + begin, up.data() + begin);
  });
}
template <class T>
void swiglu_backward(Grad<std::span<T>> dgate, Grad<std::span<T>> dup, std::span<const T> dy,
                     std::span<const T> gate, std::span<const T> up) {
  parallel_for(std::ssize(dy), kGrain, [&](Index begin, Index end) {
    const Index n = end - begin;
    const T *d = dy.data() + begin, *g = gate.data() + begin, *u = up.data() + begin;
    if (dgate) best<T>().swiglu_backward_gate(dgate.to.data() + begin, dgate.write, n, d, g, u);
    if (dup) best<T>().swiglu_backward_up(dup.to.data() + begin, dup.write, n, d, g);
  });
}

#define TILEGRAD_INSTANTIATE(T)                                                                \
  template void relu<T>(std::span<T>, std::span<const T>);                                     \
  template void relu_backward<T>(Grad<std::span<T>>, std::span<const T>, std::span<const T>);  \
  template void gelu<T>(std::span<T>, std::span<const T>);                                     \
  template void gelu_backward<T>(Grad<std::span<T>>, std::span<const T>, std::span<const T>);  \
  template void silu<T>(std::span<T>, std::span<const T>);                                     \
  template void silu_backward<T>(Grad<std::span<T>>, std::span<const T>, std::span<const T>);  \
  template void swiglu<T>(std::span<T>, std::span<const T>, std::span<const T>);               \
  template void swiglu_backward<T>(Grad<std::span<T>>, Grad<std::span<T>>, std::span<const T>, \
                                   std::span<const T>, std::span<const T>);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::kernels
#endif  // HWY_ONCE

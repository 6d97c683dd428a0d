#include "tilegrad/kernels/adamw.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr double kDecay = 0.1;

AdamWStep step_at(Index step) {
  return {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .step = step, .grad_scale = 0.5};
}

struct State {
  std::vector<double> w, m, v;
};

// The header's formula, in its order.
void plain_step(State& s, const std::vector<double>& grad, const AdamWStep& step) {
  const auto t = static_cast<double>(step.step);
  for (std::size_t i = 0; i < grad.size(); ++i) {
    const double g = step.grad_scale * grad[i];
    s.m[i] = step.beta1 * s.m[i] + (1 - step.beta1) * g;
    s.v[i] = step.beta2 * s.v[i] + (1 - step.beta2) * g * g;
    const double m_hat = s.m[i] / (1 - std::pow(step.beta1, t));
    const double v_hat = s.v[i] / (1 - std::pow(step.beta2, t));
    s.w[i] -= step.lr * (m_hat / (std::sqrt(v_hat) + step.eps) + kDecay * s.w[i]);
  }
}

template <class T>
void step_one(std::vector<T>& w, std::vector<T>& m, std::vector<T>& v, const std::vector<T>& grad,
              const AdamWStep& step) {
  const AdamWTensor<T> tensor = {.w = w, .m = m, .v = v, .grad = grad, .weight_decay = kDecay};
  adamw<T>({&tensor, 1}, step);
}

std::vector<Sum> sums(const std::vector<double>& x, double scale) {
  std::vector<Sum> out;
  for (const double v : x) out.emplace_back(v, std::abs(v) + scale);
  return out;
}

template <class T>
std::vector<double> widened(const std::vector<T>& x) {
  return {x.begin(), x.end()};
}

}  // namespace

TEST_CASE_TEMPLATE("adamw: three steps agree with the plain formula", T, float, double) {
  for (const Index n : {0, 1, 5, 16, 33, 40'001}) {
    CAPTURE(n);
    auto w = random<T>(n, 1);
    std::vector<T> m(w.size()), v(w.size());
    State expected{widened(w), widened(m), widened(v)};
    for (Index t = 1; t <= 3; ++t) {
      const auto grad = random<T>(n, static_cast<std::uint64_t>(10 + t));
      step_one<T>(w, m, v, grad, step_at(t));
      plain_step(expected, widened(grad), step_at(t));
    }
    check_close(m, sums(expected.m, 1), 20);
    check_close(v, sums(expected.v, 1), 20);
    check_close(w, sums(expected.w, 1), 20);
  }
}

TEST_CASE_TEMPLATE("adamw: weights without gradient only decay, and a first step moves by the rate", T, float,
                   double) {
  std::vector<T> w = {T(2), T(2), T(2)}, m(3), v(3);
  const std::vector<T> grad = {T(0), T(3), T(-1e-3)};
  const AdamWStep step = step_at(1);
  step_one<T>(w, m, v, grad, step);
  // with zero moments m̂ = g and v̂ = g², so a weight moves by lr g / (|g| + eps)
  const auto moved = [&](double g) {
    g *= step.grad_scale;
    return 2 - step.lr * kDecay * 2 - step.lr * g / (std::abs(g) + step.eps);
  };
  check_close(w, {Sum(moved(0)), Sum(moved(3)), Sum(moved(static_cast<double>(T(-1e-3))))}, 20);
  CHECK(m[0] == T(0));
  CHECK(v[0] == T(0));
}

TEST_CASE_TEMPLATE("adamw: same bits on any number of threads", T, float, double) {
  const auto grad = random<T>(50'001, 2);
  check_threads([&] {
    auto w = random<T>(50'001, 1);
    std::vector<T> m(w.size()), v(w.size());
    step_one<T>(w, m, v, grad, step_at(1));
    step_one<T>(w, m, v, grad, step_at(2));
    return w;
  });
}

TEST_CASE_TEMPLATE(
    "adamw: parameters that step together have the bits of each alone, on any number of threads", T, float,
    double) {
  const Index sizes[] = {3, 0, 16'384, 16'385, 1, 50'001};
  const auto decay = [](std::size_t i) { return 0.1 * static_cast<double>(i); };
  std::vector<std::vector<T>> grads, alone, m, v;
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    grads.push_back(random<T>(sizes[i], i));
    alone.push_back(random<T>(sizes[i], 100 + i));
    m.emplace_back(alone[i].size());
    v.emplace_back(alone[i].size());
  }
  auto together = alone, m_together = m, v_together = v;
  std::vector<AdamWTensor<T>> tensors;
  for (std::size_t i = 0; i < alone.size(); ++i) {
    tensors.push_back({.w = together[i],
                       .m = m_together[i],
                       .v = v_together[i],
                       .grad = grads[i],
                       .weight_decay = decay(i)});
  }
  for (Index t = 1; t <= 4; ++t) {  // each step on another number of threads
    {
      const kernels::ThreadScope scope(static_cast<int>(t));
      adamw<T>(tensors, step_at(t));
    }
    for (std::size_t i = 0; i < alone.size(); ++i) {
      const AdamWTensor<T> one = {
          .w = alone[i], .m = m[i], .v = v[i], .grad = grads[i], .weight_decay = decay(i)};
      adamw<T>({&one, 1}, step_at(t));
      CHECK(same_bits(together[i], alone[i]));
      CHECK(same_bits(m_together[i], m[i]));
      CHECK(same_bits(v_together[i], v[i]));
    }
  }
}

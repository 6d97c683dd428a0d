#include "tilegrad/train/app/check_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/train/measure/tensor_difference.h"

namespace tilegrad::train {

namespace {

using Operands = std::array<Tensor, 3>;  // q, k, v, or their gradients

constexpr std::array kGradNames = {"dq", "dk", "dv"};
// The errors allowed, as fractions of the largest element of a gradient. Two kernels in f64 differ by rounding;
// fourth-order differences with a step of 1e-3 are off by its fourth power, and by rounding divided by the step.
constexpr double kKernelsDiffer = 1e-11, kDifferencesDiffer = 1e-8;
constexpr double kStep = 1e-3;
constexpr Index kMostDifferences = 200;

class Problem {
 public:
  explicit Problem(const AttentionCheck& c) : options_{.causal = c.mask == "causal"} {
    const RandomKey key{c.seed};
    const auto random = [&](Index time, Index heads, std::uint64_t part) {
      return Tensor::normal({c.batch, time, heads, c.head_size}, Dtype::f64, key.fold(part));
    };
    operands_ = {random(c.tq, c.heads, 0), random(c.tk, c.kv_heads, 1), random(c.tk, c.kv_heads, 2)};
    cotangent_ = random(c.tq, c.heads, 3);
    if (c.mask != "random") return;
    extras_.mask = Tensor::empty({c.batch, c.heads, c.tq, c.tk}, Dtype::u8);
    RandomStream coins(key.fold(4));
    for (std::uint8_t& visible : extras_.mask.mut<std::uint8_t>()) visible = coins.bits() & 1;
  }

  const Operands& operands() const { return operands_; }
  const Tensor& random_cotangent() const { return cotangent_; }
  Tensor ones() const { return Tensor::full(cotangent_.shape(), Dtype::f64, 1); }

  Operands gradients(AttentionKernel kernel, const Tensor& cotangent) const {
    const std::array x = {Var::leaf(operands_[0]), Var::leaf(operands_[1]), Var::leaf(operands_[2])};
    Tape tape;
    tape.backward(attend(x, kernel), cotangent);
    return {x[0].grad(), x[1].grad(), x[2].grad()};
  }

  // ⟨cotangent, out⟩ with element i of operand n moved by `by`.
  double loss(std::size_t n, Index i, double by, const Tensor& cotangent) const {
    std::array x = {Var(operands_[0]), Var(operands_[1]), Var(operands_[2])};
    Tensor moved = operands_[n].clone();
    moved.mut<double>()[i] += by;
    x[n] = Var(moved);
    const Tensor out = attend(x, AttentionKernel::naive).value();
    const auto o = out.view<double>(), w = cotangent.view<double>();
    double sum = 0;
    for (std::size_t e = 0; e < o.size(); ++e) sum += o[e] * w[e];
    return sum;
  }

 private:
  Var attend(const std::array<Var, 3>& x, AttentionKernel kernel) const {
    return attention(x[0], x[1], x[2], kernel, options_, extras_);
  }

  AttentionOptions options_;
  AttentionExtras extras_;
  Operands operands_;
  Tensor cotangent_;
};

// The largest difference of two gradients from central differences, on elements spread over the tensor.
struct FromDifferences {
  double naive = 0, flash = 0;
};

FromDifferences from_differences(const Problem& problem, std::size_t n, const Tensor& cotangent,
                                 const Tensor& naive, const Tensor& flash) {
  FromDifferences largest;
  const Index size = naive.size(),
              stride = std::max<Index>(1, (size + kMostDifferences - 1) / kMostDifferences);
  for (Index i = 0; i < size; i += stride) {
    const auto change = [&](double h) {
      return problem.loss(n, i, h, cotangent) - problem.loss(n, i, -h, cotangent);
    };
    const double numeric = (8 * change(kStep) - change(2 * kStep)) / (12 * kStep);
    largest.naive = std::fmax(largest.naive, std::abs(numeric - naive.at(i)));
    largest.flash = std::fmax(largest.flash, std::abs(numeric - flash.at(i)));
  }
  return largest;
}

}  // namespace

Index check_attention(const AttentionCheck& c, std::ostream& out) {
  const Problem problem(c);
  out << fmt::format("q ({}, {}, {}, {}), k and v ({}, {}, {}, {}), f64, mask: {}\n", c.batch, c.tq, c.heads,
                     c.head_size, c.batch, c.tk, c.kv_heads, c.head_size, c.mask);
  constexpr std::string_view kLine = "{:<6}  {:<6}  {:>13}  {:>19}  {:>19}  {}\n";
  out << fmt::format(kLine, "loss", "tensor", "naive - flash", "naive - differences", "flash - differences",
                     "verdict");
  Index failures = 0;
  for (const auto& [loss, cotangent] :
       {std::pair{"sum", problem.ones()}, {"random", problem.random_cotangent()}}) {
    const Operands naive = problem.gradients(AttentionKernel::naive, cotangent);
    const Operands flash = problem.gradients(AttentionKernel::flash, cotangent);
    for (std::size_t n = 0; n < kGradNames.size(); ++n) {
      const double scale = std::max(1.0, largest_magnitude(naive[n]));
      const double kernels = largest_difference(naive[n], flash[n]);
      const FromDifferences numeric = from_differences(problem, n, cotangent, naive[n], flash[n]);
      const bool right = kernels <= kKernelsDiffer * scale && numeric.naive <= kDifferencesDiffer * scale &&
                         numeric.flash <= kDifferencesDiffer * scale;
      failures += !right;
      out << fmt::format(kLine, loss, kGradNames[n], fmt::format("{:.1e}", kernels),
                         fmt::format("{:.1e}", numeric.naive), fmt::format("{:.1e}", numeric.flash),
                         right ? "ok" : "FAILED");
    }
  }
  return failures;
}

}  // namespace tilegrad::train

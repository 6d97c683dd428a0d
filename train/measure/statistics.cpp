#include "tilegrad/train/measure/statistics.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <utility>

namespace tilegrad::train {

Quartiles quartiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
  };
  return {.first = at(0.25), .median = at(0.5), .third = at(0.75)};
}

double median(std::vector<double> values) { return quartiles(std::move(values)).median; }

namespace {

// P(X <= k) for the heads X of n fair coins; through logarithms, because 2^-n underflows.
double binomial_tail(int n, int k) {
  double sum = 0;
  for (int i = 0; i <= k; ++i) {
    sum += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) - std::lgamma(n - i + 1) - n * std::log(2.0));
  }
  return sum;
}

}  // namespace

Verdict sign_test(std::span<const double> a, std::span<const double> b, double level) {
  int less = 0, greater = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    less += a[i] < b[i];
    greater += a[i] > b[i];
  }
  if (2 * binomial_tail(less + greater, std::min(less, greater)) > level) {
    return Verdict::not_distinguishable;
  }
  return less > greater ? Verdict::less : Verdict::greater;
}

Verdict sequential_sign_test(std::span<const double> a, std::span<const double> b,
                             std::span<const std::size_t> looks) {
  constexpr std::array kShares = {0.032, 0.0065, 0.0115};
  assert(looks.size() <= kShares.size());
  const std::size_t pairs = std::min(a.size(), b.size());
  for (std::size_t i = 0; i < looks.size() && looks[i] <= pairs; ++i) {
    const Verdict verdict = sign_test(a.first(looks[i]), b.first(looks[i]), kShares[i]);
    if (verdict != Verdict::not_distinguishable) return verdict;
  }
  return Verdict::not_distinguishable;
}

std::optional<std::size_t> first_lasting_win(const std::vector<bool>& won) {
  std::size_t first = won.size();
  while (first > 0 && won[first - 1]) --first;
  return first < won.size() ? std::optional(first) : std::nullopt;
}

}  // namespace tilegrad::train

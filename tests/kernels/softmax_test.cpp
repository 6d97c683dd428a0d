#include "tilegrad/kernels/softmax.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr std::int32_t kIgnored = -1;
constexpr Index kSoftmaxRows[] = {0, 1, 7, 300};
constexpr Index kCols[] = {1, 3, 16, 65, 256};

// log Σ_j exp(x_ij)
template <class T>
double exact_lse(const Padded<T>& x, Index i) {
  double max = x(i, 0), sum = 0;
  for (Index j = 0; j < x.cols; ++j) max = std::max(max, x(i, j));
  for (Index j = 0; j < x.cols; ++j) sum += std::exp(x(i, j) - max);
  return max + std::log(sum);
}

// A probability e^(x − lse): the argument's size counts as roundings, as does the sum.
template <class T>
std::vector<Sum> exact_softmax(const Padded<T>& x) {
  std::vector<Sum> y;
  for (Index i = 0; i < x.rows; ++i) {
    const double lse = exact_lse(x, i);
    for (Index j = 0; j < x.cols; ++j) {
      const double p = std::exp(x(i, j) - lse);
      y.emplace_back(p, p * (1 + std::abs(x(i, j)) + std::abs(lse)));
    }
  }
  return y;
}

template <class T>
struct Case {
  Padded<T> logits;
  std::vector<std::int32_t> targets;

  Case(Index rows, Index cols) : logits(rows, cols, 1), targets(random_ids(rows, 2, cols)) {
    for (std::size_t i = 0; i < targets.size(); i += 3) targets[i] = kIgnored;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("softmax: agrees with plain loops, also in place", T, float, double) {
  for (const Index rows : kSoftmaxRows) {
    for (const Index cols : kCols) {
      CAPTURE(rows);
      CAPTURE(cols);
      const Padded<T> x(rows, cols, 1);
      Padded<T> y(rows, cols, 2), in_place = x;
      softmax<T>(view(y), view(x));
      softmax<T>(view(in_place), view(in_place));
      check_close(y.dense(), exact_softmax(x), static_cast<double>(cols) + 8);
      CHECK(same_bits(in_place.dense(), y.dense()));
      CHECK(y.room_is_untouched());
    }
  }
}

TEST_CASE_TEMPLATE("softmax: large scores do not overflow, and -inf gives 0", T, float, double) {
  Padded<T> x(1, 20, 1);
  x.fill(T(1e4));
  x.at(0, 5) = -std::numeric_limits<T>::infinity();
  x.at(0, 19) = T(-1e4);
  softmax<T>(view(x), view(x));
  CHECK(x(0, 5) == 0);
  CHECK(x(0, 19) == 0);
  check_close(std::vector<T>{x.at(0, 0), x.at(0, 18)}, {Sum(1.0 / 18), Sum(1.0 / 18)}, 20);
}

TEST_CASE_TEMPLATE("softmax: NaN makes its own row NaN and no other", T, float, double) {
  for (const Index at : {0, 3, 66}) {
    Padded<T> x(3, 67, 1);
    x.at(1, at) = std::numeric_limits<T>::quiet_NaN();
    const Padded<T> before = x;
    softmax<T>(view(x), view(before));
    bool right = true;
    for (Index i = 0; i < 3; ++i) {
      for (Index j = 0; j < 67; ++j) right = right && std::isnan(x(i, j)) == (i == 1);
    }
    CHECK(right);
    std::vector<T> max(3), log_sum(3);
    const std::vector<std::int32_t> targets = {0, 1, 2};
    CHECK(std::isnan(cross_entropy<T>(max, log_sum, view(before), targets, kIgnored)));
    CHECK(std::isnan(log_sum[1]));
    CHECK_FALSE(std::isnan(log_sum[0]));
  }
}

TEST_CASE_TEMPLATE("softmax_backward: agrees with plain loops", T, float, double) {
  for (const Index rows : kSoftmaxRows) {
    for (const Index cols : kCols) {
      CAPTURE(rows);
      CAPTURE(cols);
      const Padded<T> dy(rows, cols, 1), x(rows, cols, 2);
      Padded<T> y(rows, cols, 3);
      softmax<T>(view(y), view(x));
      std::vector<Sum> dx;
      for (Index i = 0; i < rows; ++i) {
        Sum dot;
        for (Index j = 0; j < cols; ++j) dot.add(y(i, j) * dy(i, j));
        for (Index j = 0; j < cols; ++j) {
          dx.emplace_back(y(i, j) * (dy(i, j) - dot.value), y(i, j) * (std::abs(dy(i, j)) + dot.magnitude));
        }
      }
      check_writes<T>(dx, static_cast<double>(cols) + 4, [&](auto& grad, Write write) {
        softmax_backward<T>({Mat<T>(grad.data(), rows, cols), write}, view(dy), view(y));
      });
    }
  }
}

TEST_CASE_TEMPLATE("cross_entropy: agrees with plain loops, ignored rows count nothing", T, float, double) {
  for (const Index rows : kSoftmaxRows) {
    for (const Index cols : kCols) {
      CAPTURE(rows);
      CAPTURE(cols);
      const Case<T> c(rows, cols);
      Sum loss;
      std::vector<Sum> lse;
      for (Index i = 0; i < rows; ++i) {
        const double row = exact_lse(c.logits, i);
        lse.emplace_back(row, 1 + std::abs(row));
        const std::int32_t target = c.targets[i];
        if (target != kIgnored) loss.add(row - c.logits(i, target));
      }
      std::vector<T> max(c.targets.size()), log_sum(max);
      const double total = cross_entropy<T>(max, log_sum, view(c.logits), c.targets, kIgnored);
      std::vector<T> actual(max);
      for (std::size_t i = 0; i < actual.size(); ++i) actual[i] += log_sum[i];
      check_close(actual, lse, static_cast<double>(cols) + 4);
      const double rounding = tolerance<T>(static_cast<double>(cols) + 4, static_cast<double>(rows) * 8);
      CHECK(std::abs(total - loss.value) <= rounding);
    }
  }
}

TEST_CASE_TEMPLATE("cross_entropy_backward: agrees with plain loops, ignored rows have none", T, float,
                   double) {
  const T s = T(0.125);
  for (const Index rows : kSoftmaxRows) {
    for (const Index cols : kCols) {
      CAPTURE(rows);
      CAPTURE(cols);
      const Case<T> c(rows, cols);
      std::vector<T> max(c.targets.size()), log_sum(max);
      cross_entropy<T>(max, log_sum, view(c.logits), c.targets, kIgnored);
      std::vector<Sum> dlogits = exact_softmax(c.logits);
      for (Index i = 0; i < rows; ++i) {
        const std::int32_t target = c.targets[i];
        for (Index j = 0; j < cols; ++j) {
          Sum& d = dlogits[i * cols + j];
          d = target == kIgnored ? Sum() : Sum(d.value - (j == target ? 1 : 0), d.magnitude + 1);
          d = Sum(double{s} * d.value, double{s} * d.magnitude);
        }
      }
      check_writes<T>(dlogits, static_cast<double>(cols) + 8, [&](auto& grad, Write write) {
        cross_entropy_backward<T>({Mat<T>(grad.data(), rows, cols), write}, s, view(c.logits), max, log_sum,
                                  c.targets, kIgnored);
      });
    }
  }
}

TEST_CASE_TEMPLATE("cross_entropy: rows that are all ignored give loss 0 and no gradient", T, float, double) {
  const Padded<T> logits(4, 9, 1);
  const std::vector<std::int32_t> targets(4, kIgnored);
  std::vector<T> max(4), log_sum(4), grad(36, std::numeric_limits<T>::quiet_NaN());
  CHECK(cross_entropy<T>(max, log_sum, view(logits), targets, kIgnored) == 0);
  cross_entropy_backward<T>({Mat<T>(grad.data(), 4, 9), Write::overwrite}, T(1), view(logits), max, log_sum,
                            targets, kIgnored);
  CHECK(grad == std::vector<T>(36, T(0)));
}

TEST_CASE_TEMPLATE("cross_entropy: same bits on any number of threads", T, float, double) {
  const Case<T> c(900, 65);
  check_threads([&] {
    std::vector<T> max(c.targets.size()), log_sum(max);
    return std::vector<double>{cross_entropy<T>(max, log_sum, view(c.logits), c.targets, kIgnored)};
  });
  check_threads([&] {
    Padded<T> y(900, 65, 2);
    softmax<T>(view(y), view(c.logits));
    return y.dense();
  });
}

TEST_CASE_TEMPLATE("cross_entropy: a large offset that is common to all logits changes nothing", T, float,
                   double) {
  for (const double offset : {0.0, 1e7, 1e8}) {
    CAPTURE(offset);
    std::vector<T> logits;
    for (const double x : {0.0, 8.0, 16.0}) logits.push_back(static_cast<T>(offset + x));  // exact in float
    const std::vector<std::int32_t> targets = {1};
    std::vector<T> max(1), log_sum(1), grad(3);
    const Mat<const T> row(logits.data(), 1, 3);
    const double sum = std::exp(-16.0) + std::exp(-8.0) + 1;
    const double tolerance = 16 * unit_roundoff<T>();
    CHECK(std::abs(cross_entropy<T>(max, log_sum, row, targets, kIgnored) - (8 + std::log(sum))) <=
          16 * tolerance);
    cross_entropy_backward<T>({Mat<T>(grad.data(), 1, 3)}, T(1), row, max, log_sum, targets, kIgnored);
    CHECK(std::abs(static_cast<double>(grad[0]) - std::exp(-16.0) / sum) <= tolerance);
    CHECK(std::abs(static_cast<double>(grad[1]) - (std::exp(-8.0) / sum - 1)) <= tolerance);
    CHECK(std::abs(static_cast<double>(grad[2]) - 1 / sum) <= tolerance);
  }
}

#include "tilegrad/kernels/norm.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr double kEps = 1e-5;
constexpr Index kRowCounts[] = {0, 1, 7, 700};
constexpr Index kNormCols[] = {1, 5, 48, 131};

// Inputs, and everything that forward and backward should give, by the formulas in the header. `center` tells
// layernorm from rmsnorm, which has neither mean nor bias.
template <class T>
struct Reference {
  Index rows, cols;
  Padded<T> x, dy;
  std::vector<T> weight, bias;
  std::vector<Sum> mean, rstd, y, dx, dweight, dbias;

  Reference(Index rows_, Index cols_, bool center)
      : rows(rows_),
        cols(cols_),
        x(rows, cols, 1),
        dy(rows, cols, 2),
        weight(random<T>(cols, 3)),
        bias(random<T>(cols, 4)),
        dweight(weight.size()),
        dbias(weight.size()) {
    for (Index i = 0; i < rows; ++i) row(i, center);
  }

  double roundings() const { return 3 * static_cast<double>(cols) + 20; }

 private:
  void row(Index i, bool center) {
    const auto n = static_cast<double>(cols);
    Sum sum, squares;
    for (Index j = 0; center && j < cols; ++j) sum.add(x(i, j));
    const double m = sum.value / n, spread = sum.magnitude / n;
    for (Index j = 0; j < cols; ++j) squares.add((x(i, j) - m) * (x(i, j) - m));
    const double r = 1 / std::sqrt(squares.value / n + kEps);
    mean.emplace_back(m, spread);
    rstd.emplace_back(r, r * (1 + spread * r));

    Sum g_mean, gn_mean;  // the means over j of g and g ⊙ n
    for (Index j = 0; j < cols; ++j) {
      const auto column = static_cast<std::size_t>(j);
      const double normal = (x(i, j) - m) * r, size = (std::abs(x(i, j)) + spread) * r * (1 + spread * r);
      const double w = static_cast<double>(weight[column]), g = dy(i, j) * w;
      const double b = center ? static_cast<double>(bias[column]) : 0;
      y.emplace_back(normal * w + b, size * std::abs(w) + std::abs(b));
      if (center) g_mean.add(g / n);
      gn_mean.value += g * normal / n;
      gn_mean.magnitude += std::abs(g) * size / n;
      dweight[column].value += dy(i, j) * normal;
      dweight[column].magnitude += std::abs(dy(i, j)) * size;
      dbias[column].add(dy(i, j));
    }
    for (Index j = 0; j < cols; ++j) {
      const double normal = (x(i, j) - m) * r, size = (std::abs(x(i, j)) + spread) * r * (1 + spread * r);
      const double g = dy(i, j) * static_cast<double>(weight[j]);
      dx.emplace_back(r * (g - g_mean.value - normal * gn_mean.value),
                      r * (std::abs(g) + g_mean.magnitude + size * gn_mean.magnitude) * (1 + spread * r));
    }
  }
};

template <class T>
std::vector<T> values(const std::vector<Sum>& sums) {
  std::vector<T> out;
  for (const Sum& s : sums) out.push_back(static_cast<T>(s.value));
  return out;
}

template <class F>
void for_each_shape(F&& f) {
  for (const Index rows : kRowCounts) {
    for (const Index cols : kNormCols) {
      CAPTURE(rows);
      CAPTURE(cols);
      f(rows, cols);
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("layernorm: agrees with plain loops", T, float, double) {
  for_each_shape([](Index rows, Index cols) {
    const Reference<T> e(rows, cols, true);
    Padded<T> y(rows, cols, 9);
    std::vector<T> mean(e.mean.size()), rstd(e.rstd.size());
    layernorm<T>(view(y), mean, rstd, view(e.x), e.weight, e.bias, kEps);
    check_close(y.dense(), e.y, e.roundings());
    check_close(mean, e.mean, e.roundings());
    check_close(rstd, e.rstd, e.roundings());
    CHECK(y.room_is_untouched());
  });
}

TEST_CASE_TEMPLATE("layernorm_backward: agrees with plain loops, each gradient alone", T, float, double) {
  for_each_shape([](Index rows, Index cols) {
    const Reference<T> e(rows, cols, true);
    const auto mean = values<T>(e.mean), rstd = values<T>(e.rstd);
    const auto backward = [&](const LayerNormGrads<T>& grads) {
      layernorm_backward<T>(grads, view(e.dy), view(e.x), e.weight, mean, rstd);
    };
    const double terms = e.roundings(), over_rows = terms + static_cast<double>(rows);
    check_writes<T>(e.dx, terms, [&](auto& dx, Write write) {
      // a matrix without rows may have no data, which then reads as not needed
      backward({.dx = {Mat<T>(dx.data(), rows, cols), write}});
    });
    check_writes<T>(e.dweight, over_rows, [&](auto& dweight, Write write) {
      backward({.dweight = {dweight, write}});
    });
    check_writes<T>(e.dbias, over_rows, [&](auto& dbias, Write write) {
      backward({.dbias = {dbias, write}});
    });
  });
}

TEST_CASE_TEMPLATE("layernorm: a large mean does not eat the variance", T, float, double) {
  // (x − mean)² in a second pass; E[x²] − mean² would lose every digit in float.
  std::vector<T> x, weight(100, T(1)), bias(100, T(0)), y(100), mean(1), rstd(1);
  for (int j = 0; j < 100; ++j) x.push_back(T(4096 + (j % 2 == 0 ? 1 : -1)));
  layernorm<T>(Mat<T>(y.data(), 1, 100), mean, rstd, Mat<const T>(x.data(), 1, 100), weight, bias, 0);
  CHECK(mean[0] == T(4096));
  CHECK(rstd[0] == T(1));
  CHECK(y[0] == T(1));
  CHECK(y[99] == T(-1));
}

TEST_CASE_TEMPLATE("rmsnorm: agrees with plain loops", T, float, double) {
  for_each_shape([](Index rows, Index cols) {
    const Reference<T> e(rows, cols, false);
    Padded<T> y(rows, cols, 9);
    std::vector<T> rstd(e.rstd.size());
    rmsnorm<T>(view(y), rstd, view(e.x), e.weight, kEps);
    check_close(y.dense(), e.y, e.roundings());
    check_close(rstd, e.rstd, e.roundings());
    CHECK(y.room_is_untouched());
  });
}

TEST_CASE_TEMPLATE("rmsnorm_backward: agrees with plain loops, each gradient alone", T, float, double) {
  for_each_shape([](Index rows, Index cols) {
    const Reference<T> e(rows, cols, false);
    const auto rstd = values<T>(e.rstd);
    const double terms = e.roundings(), over_rows = terms + static_cast<double>(rows);
    check_writes<T>(e.dx, terms, [&](auto& dx, Write write) {
      rmsnorm_backward<T>({.dx = {Mat<T>(dx.data(), rows, cols), write}}, view(e.dy), view(e.x), e.weight,
                          rstd);
    });
    check_writes<T>(e.dweight, over_rows, [&](auto& dweight, Write write) {
      rmsnorm_backward<T>({.dweight = {dweight, write}}, view(e.dy), view(e.x), e.weight, rstd);
    });
  });
}

TEST_CASE_TEMPLATE("norms: NaN makes its own row NaN and no other", T, float, double) {
  Reference<T> e(3, 40, true);
  e.x.at(1, 39) = std::numeric_limits<T>::quiet_NaN();
  Padded<T> y(3, 40, 9);
  std::vector<T> mean(3), rstd(3);
  const auto row_1_alone_is_nan = [&] {
    bool right = true;
    for (Index i = 0; i < 3; ++i) {
      for (Index j = 0; j < 40; ++j) right = right && std::isnan(y(i, j)) == (i == 1);
    }
    return right;
  };
  layernorm<T>(view(y), mean, rstd, view(e.x), e.weight, e.bias, kEps);
  CHECK(row_1_alone_is_nan());
  rmsnorm<T>(view(y), rstd, view(e.x), e.weight, kEps);
  CHECK(row_1_alone_is_nan());
}

TEST_CASE_TEMPLATE("norms: same bits on any number of threads", T, float, double) {
  const Reference<T> e(2000, 130, true);
  const auto mean = values<T>(e.mean), rstd = values<T>(e.rstd);
  check_threads([&] {
    std::vector<T> all(2000 * 130 + 260);
    const std::span<T> span(all);
    const LayerNormGrads<T> grads = {.dx = {Mat<T>(all.data(), 2000, 130)},
                                     .dweight = {span.subspan(2000 * 130, 130)},
                                     .dbias = {span.subspan(2000 * 130 + 130)}};
    layernorm_backward<T>(grads, view(e.dy), view(e.x), e.weight, mean, rstd);
    return all;
  });
  check_threads([&] {
    std::vector<T> all(2000 * 130 + 130);
    const RmsNormGrads<T> grads = {.dx = {Mat<T>(all.data(), 2000, 130)},
                                   .dweight = {std::span<T>(all).subspan(2000 * 130)}};
    rmsnorm_backward<T>(grads, view(e.dy), view(e.x), e.weight, rstd);
    return all;
  });
}

TEST_CASE_TEMPLATE("norms: rows whose squares overflow are normalised like any others", T, float, double) {
  const T huge = sizeof(T) == 4 ? T(1e30) : T(1e300);
  std::vector<T> x, weight(64, T(1)), bias(64, T(0)), y(64), mean(1), rstd(1);
  for (int j = 0; j < 64; ++j) x.push_back(j % 2 == 0 ? huge : -huge);
  const auto alternates = [&] {
    for (int j = 0; j < 64; ++j) {
      CHECK(static_cast<double>(y[j]) == doctest::Approx(j % 2 == 0 ? 1 : -1).epsilon(1e-5));
    }
  };
  rmsnorm<T>(Mat<T>(y.data(), 1, 64), rstd, Mat<const T>(x.data(), 1, 64), weight, kEps);
  alternates();
  layernorm<T>(Mat<T>(y.data(), 1, 64), mean, rstd, Mat<const T>(x.data(), 1, 64), weight, bias, kEps);
  alternates();
}

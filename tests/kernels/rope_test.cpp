#include "tilegrad/kernels/rope.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr double kBase = 10'000;

// x (B, T, H, D), contiguous, rotated by the header's angles times `direction`.
template <class T>
std::vector<Sum> rotated(const std::vector<T>& x, Index time, Index heads, Index dim, Index first,
                         double direction, double base = kBase) {
  std::vector<Sum> y(x.size());
  const Index half = dim / 2;
  for (Index row = 0; row < std::ssize(x) / dim; ++row) {
    const auto t = static_cast<double>(row / heads % time + first);
    for (Index j = 0; j < half; ++j) {
      const double angle = t * std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(dim));
      const double c = std::cos(angle), s = direction * std::sin(angle);
      const auto low = static_cast<std::size_t>(row * dim + j), high = low + static_cast<std::size_t>(half);
      const double a = static_cast<double>(x[low]), b = static_cast<double>(x[high]);
      y[low] = Sum(a * c - b * s, std::abs(a) + std::abs(b));
      y[high] = Sum(a * s + b * c, std::abs(a) + std::abs(b));
    }
  }
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("rope: rotates each pair by its angle, and backward rotates back", T, float, double) {
  for (const Index dim : {2, 6, 32}) {
    for (const Index first : {0, 5}) {
      CAPTURE(dim);
      const Index batch = 2, time = 37, heads = 3;
      const auto x = random<T>(batch * time * heads * dim, 1);
      std::vector<T> y(x.size());
      rope<T>(HeadsView<T>(y.data(), batch, time, heads, dim),
              HeadsView<const T>(x.data(), batch, time, heads, dim), first, kBase);
      check_close(y, rotated(x, time, heads, dim, first, 1), 6);
      std::vector<T> in_place = x;
      const HeadsView<T> view(in_place.data(), batch, time, heads, dim);
      rope<T>(view, view, first, kBase);
      CHECK(same_bits(in_place, y));
      check_writes<T>(rotated(x, time, heads, dim, first, -1), 6, [&](auto& dx, Write write) {
        rope_backward<T>({HeadsView<T>(dx.data(), batch, time, heads, dim), write},
                         HeadsView<const T>(x.data(), batch, time, heads, dim), first, kBase);
      });
    }
  }
}

TEST_CASE_TEMPLATE(
    "rope: angles kept from an earlier call serve positions that are among them, and no others", T, float,
    double) {
  struct Call {
    Index time, first, dim;
    double base;
  };
  const Call calls[] = {{.time = 9, .first = 3, .dim = 8, .base = kBase},   // 3 ... 11
                        {.time = 4, .first = 5, .dim = 8, .base = kBase},   // inside
                        {.time = 4, .first = 8, .dim = 8, .base = kBase},   // up to the last one
                        {.time = 4, .first = 9, .dim = 8, .base = kBase},   // one too far
                        {.time = 2, .first = 8, .dim = 8, .base = kBase},   // one too early
                        {.time = 2, .first = 8, .dim = 4, .base = kBase},   // another size
                        {.time = 2, .first = 8, .dim = 4, .base = 500.0}};  // other angles
  for (const Call& c : calls) {
    CAPTURE(c.first);
    const auto x = random<T>(c.time * c.dim, 1);
    std::vector<T> y(x.size());
    rope<T>(HeadsView<T>(y.data(), 1, c.time, 1, c.dim), HeadsView<const T>(x.data(), 1, c.time, 1, c.dim),
            c.first, c.base);
    check_close(y, rotated(x, c.time, 1, c.dim, c.first, 1, c.base), 6);
  }
}

TEST_CASE_TEMPLATE("rope: reads and writes through strides", T, float, double) {
  // q of a packed (B, T, H + 2 Hkv, D) projection: the heads after it stay as they are
  const Index batch = 2, time = 5, heads = 3, dim = 4, packed = 7;
  const auto x = random<T>(batch * time * packed * dim, 1);
  std::vector<T> y = x;
  const HeadsView<T> q(y.data(), batch, time, heads, dim, time * packed * dim, packed * dim, dim);
  rope<T>(q, q, 0, kBase);
  auto expected = rotated(x, time, packed, dim, 0, 1);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto head = static_cast<Index>(i) / dim % packed;
    if (head >= heads) expected[i] = Sum(static_cast<double>(x[i]));
  }
  check_close(y, expected, 6);
}

TEST_CASE_TEMPLATE("rope: scores depend on the distance of positions alone", T, float, double) {
  const Index dim = 16;
  const auto q = random<T>(dim, 1), k = random<T>(dim, 2);
  const auto score = [&](Index position_q, Index position_k) {
    std::vector<T> a(q.size()), b(q.size());
    rope<T>(HeadsView<T>(a.data(), 1, 1, 1, dim), HeadsView<const T>(q.data(), 1, 1, 1, dim), position_q,
            kBase);
    rope<T>(HeadsView<T>(b.data(), 1, 1, 1, dim), HeadsView<const T>(k.data(), 1, 1, 1, dim), position_k,
            kBase);
    Sum dot;
    for (std::size_t j = 0; j < a.size(); ++j) dot.add(static_cast<double>(a[j]) * static_cast<double>(b[j]));
    return dot;
  };
  const Sum near = score(7, 3), far = score(107, 103);
  CHECK(std::abs(near.value - far.value) <= tolerance<T>(200, near.magnitude));
}

TEST_CASE_TEMPLATE("rope: same bits on any number of threads", T, float, double) {
  const auto x = random<T>(2 * 500 * 4 * 32, 1);
  check_threads([&] {
    std::vector<T> y(x.size());
    rope<T>(HeadsView<T>(y.data(), 2, 500, 4, 32), HeadsView<const T>(x.data(), 2, 500, 4, 32), 0, kBase);
    return y;
  });
}

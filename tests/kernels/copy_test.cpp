#include "tilegrad/kernels/copy.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

TEST_CASE_TEMPLATE("copy: moves a matrix between strides, and adds when asked", T, float, double) {
  for (const Index rows : {0, 1, 300}) {
    for (const Index cols : {0, 1, 131}) {
      CAPTURE(rows);
      CAPTURE(cols);
      const Padded<T> src(rows, cols, 1, 5);
      Padded<T> dst(rows, cols, 2, 2);
      dst.fill(std::numeric_limits<T>::quiet_NaN());
      copy<T>(view(dst), Write::overwrite, view(src));
      CHECK(same_bits(dst.dense(), src.dense()));
      copy<T>(view(dst), Write::accumulate, view(src));
      auto twice = src.dense();
      for (T& v : twice) v *= 2;
      CHECK(same_bits(dst.dense(), twice));
      CHECK(dst.room_is_untouched());
    }
  }
}

TEST_CASE_TEMPLATE("swap_axes: exchanges the middle axes, and is its own backward", T, float, double) {
  struct Shape {
    Index a, b, c, d;
  };
  for (const Shape& s :
       {Shape{1, 1, 1, 1}, Shape{2, 3, 5, 7}, Shape{3, 50, 4, 33}, Shape{0, 2, 3, 4}, Shape{300, 4, 50, 1}}) {
    const auto src = random<T>(s.a * s.b * s.c * s.d, 1);
    std::vector<T> dst(src.size(), std::numeric_limits<T>::quiet_NaN()), back = dst;
    swap_axes<T>(dst.data(), Write::overwrite, src.data(), s.a, s.b, s.c, s.d);
    bool right = true;
    for (Index i = 0; i < std::ssize(src); ++i) {
      const Index d = i % s.d, c = i / s.d % s.c, b = i / (s.d * s.c) % s.b, a = i / (s.d * s.c * s.b);
      right = right && dst[((a * s.c + c) * s.b + b) * s.d + d] == src[i];
    }
    CHECK(right);
    swap_axes<T>(back.data(), Write::overwrite, dst.data(), s.a, s.c, s.b, s.d);
    CHECK(same_bits(back, src));
    swap_axes<T>(back.data(), Write::accumulate, dst.data(), s.a, s.c, s.b, s.d);
    auto twice = src;
    for (T& v : twice) v *= 2;
    CHECK(same_bits(back, twice));
  }
}

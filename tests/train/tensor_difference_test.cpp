#include "tilegrad/train/measure/tensor_difference.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tilegrad/base/error.h"

using namespace tilegrad;
using train::agree;
using train::largest_difference;

TEST_CASE("tensor difference: the largest one counts, whatever the dtypes") {
  const Tensor a = Tensor::from<float>({3}, {1, 2, 3}), b = Tensor::from<double>({3}, {1, 4.5, 2});
  CHECK(largest_difference(a, b) == 2.5);
  CHECK(largest_difference(b, a) == 2.5);
  CHECK(largest_difference(a, a) == 0);
  CHECK_THROWS_WITH_AS(largest_difference(a, Tensor::zeros({3, 1}, Dtype::f32)),
                       "largest difference: shapes differ: (3) and (3, 1)", Error);
}

TEST_CASE("tensor difference: NaN is never hidden, and equal infinities are equal") {
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor a = Tensor::from<double>({3}, {inf, -inf, 1}), b = Tensor::from<double>({3}, {inf, -inf, 2});
  CHECK(largest_difference(a, b) == 1);
  CHECK(largest_difference(a, Tensor::from<double>({3}, {inf, inf, 1})) == inf);
  CHECK(largest_difference(a, Tensor::from<double>({3}, {inf, std::nan(""), 2})) == inf);
}

TEST_CASE("tensor difference: results agree if half of their digits do") {
  const auto tensor = [](Dtype dtype, double x) { return Tensor::from<double>({2}, {x, 100}).cast(dtype); };
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    CAPTURE(dtype);
    const double digits = dtype == Dtype::f32 ? 2e-4 : 1e-8;
    const Tensor expected = tensor(dtype, 1);
    CHECK(agree(tensor(dtype, 1 + 100 * digits), expected));
    CHECK_FALSE(agree(tensor(dtype, 1 + 300 * digits), expected));
    CHECK_FALSE(agree(tensor(dtype, std::nan("")), expected));
  }
  const Tensor infinite = tensor(Dtype::f64, std::numeric_limits<double>::infinity());
  CHECK_FALSE(agree(infinite, infinite));
}

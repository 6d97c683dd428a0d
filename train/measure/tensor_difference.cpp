#include "tilegrad/train/measure/tensor_difference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tilegrad/base/error.h"

namespace tilegrad::train {

double largest_difference(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "largest difference: shapes differ: {} and {}", a.shape(), b.shape());
  double largest = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = a.at(i), y = b.at(i);
    if (x == y) continue;  // two infinities among them, whose difference would be NaN
    const double difference = std::abs(x - y);
    largest =
        std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(largest, difference);
  }
  return largest;
}

double largest_magnitude(const Tensor& x) {
  double largest = 0;
  for (Index i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x.at(i)));
  return largest;
}

bool agree(const Tensor& result, const Tensor& expected) {
  const double magnitude = largest_magnitude(expected);
  return std::isfinite(magnitude) && with_float_type("agree", compute_dtype(result.dtype()), [&]<class T>() {
           const double tolerance = std::sqrt(static_cast<double>(std::numeric_limits<T>::epsilon()));
           return largest_difference(result, expected) <= tolerance * magnitude;
         });
}

}  // namespace tilegrad::train

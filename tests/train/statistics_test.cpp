#include "tilegrad/train/measure/statistics.h"

#include <doctest/doctest.h>

using namespace tilegrad::train;

TEST_CASE("statistics: median and quartiles, in whatever order the values come") {
  const Quartiles q = quartiles({5, 1, 4, 2, 3});
  CHECK(q.first == 2);
  CHECK(q.median == 3);
  CHECK(q.third == 4);
  CHECK(quartiles({7}).first == 7);
  CHECK(quartiles({7}).third == 7);
  CHECK(quartiles({}).third == 0);
}

TEST_CASE("statistics: the median of two values is the upper one, of none it is 0") {
  CHECK(median({2, 1}) == 2);
  CHECK(median({4, 1, 3, 2}) == 3);
  CHECK(median({}) == 0);
}

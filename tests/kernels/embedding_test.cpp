#include "tilegrad/kernels/embedding.h"

#include <doctest/doctest.h>

#include "tests/kernels/checks.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

TEST_CASE_TEMPLATE("embedding: copies the rows of the table", T, float, double) {
  for (const Index cols : {1, 48, 131}) {
    const Padded<T> table(11, cols, 1);
    const auto ids = random_ids(2000, 2, 11);
    Padded<T> y(2000, cols, 3);
    embedding<T>(view(y), view(table), ids);
    bool right = true;
    for (Index n = 0; n < y.rows; ++n) {
      for (Index j = 0; j < cols; ++j) right = right && y(n, j) == table(ids[n], j);
    }
    CHECK(right);
    CHECK(y.room_is_untouched());
  }
}

TEST_CASE_TEMPLATE("embedding_backward: adds the rows of equal ids, and overwrite zeroes the others", T,
                   float, double) {
  for (const Index positions : {0, 1, 700}) {
    for (const Index cols : {1, 48, 131}) {
      CAPTURE(positions);
      CAPTURE(cols);
      const Padded<T> dy(positions, cols, 1);
      const auto ids = random_ids(positions, 2, 11);  // of 13: two rows are never used
      std::vector<Sum> dtable(static_cast<std::size_t>(13 * cols));
      for (Index n = 0; n < positions; ++n) {
        for (Index j = 0; j < cols; ++j) {
          dtable[ids[static_cast<std::size_t>(n)] * cols + j].add(dy(n, j));
        }
      }
      check_writes<T>(dtable, static_cast<double>(2 * positions + 1), [&](auto& grad, Write write) {
        embedding_backward<T>({Mat<T>(grad.data(), 13, cols), write}, view(dy), ids);
      });
    }
  }
}

TEST_CASE_TEMPLATE("embedding_backward: same bits on any number of threads", T, float, double) {
  const Padded<T> dy(900, 300, 1);
  const auto ids = random_ids(900, 2, 5);
  check_threads([&] {
    std::vector<T> grad(5 * 300);
    embedding_backward<T>({Mat<T>(grad.data(), 5, 300), Write::overwrite}, view(dy), ids);
    return grad;
  });
}

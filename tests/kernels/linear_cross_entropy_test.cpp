#include "tilegrad/kernels/linear_cross_entropy.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/kernels/checks.h"
#include "tilegrad/base/memory.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

namespace {

constexpr std::int32_t kNoTarget = -1;
constexpr double kScale = 0.125;

struct HeadSizes {
  Index rows, vocabulary, width;
};
constexpr HeadSizes kOneBlock = {37, 11, 6};
constexpr HeadSizes kThreeBlocks = {520, 4'200,
                                    2};  // of 174 rows; of doubles or floats, 256 rows are more than 4 MiB

template <class T>
struct HeadCase {
  Padded<T> x, weight;
  std::vector<std::int32_t> targets;

  explicit HeadCase(const HeadSizes& n)
      : x(n.rows, n.width, 1),
        weight(n.vocabulary, n.width, 2),
        targets(random_ids(n.rows, 3, n.vocabulary)) {
    for (std::size_t i = 0; i < targets.size(); i += 3) targets[i] = kNoTarget;
  }

  double run(Grad<Mat<T>> dx, Grad<Mat<T>> dweight) const {
    return linear_cross_entropy<T>(dx, dweight, view(x), view(weight), targets, kNoTarget, T(kScale));
  }
};

struct HeadGradients {
  Sum loss;
  std::vector<Sum> dx, dweight;
};

// The header's formulas, row by row.
template <class T>
HeadGradients plain_head(const HeadCase<T>& c) {
  const Index width = c.x.cols;
  HeadGradients e = {.loss = {},
                     .dx = std::vector<Sum>(c.x.rows * width),
                     .dweight = std::vector<Sum>(c.weight.rows * width)};
  std::vector<double> logits(static_cast<std::size_t>(c.weight.rows));
  for (Index i = 0; i < c.x.rows; ++i) {
    if (c.targets[i] == kNoTarget) continue;
    for (Index j = 0; j < c.weight.rows; ++j) {
      logits[j] = 0;
      for (Index k = 0; k < width; ++k) logits[j] += c.x(i, k) * c.weight(j, k);
    }
    const double max = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit - max);
    const double lse = max + std::log(sum);
    e.loss.add(lse - logits[c.targets[i]]);
    e.loss.magnitude += std::abs(lse);
    for (Index j = 0; j < c.weight.rows; ++j) {
      const double p = std::exp(logits[j] - lse), target = j == c.targets[i] ? 1 : 0;
      const double size = kScale * (p * (1 + std::abs(logits[j]) + std::abs(lse)) + target);
      for (Index k = 0; k < width; ++k) {
        const Sum to_x(kScale * (p - target) * c.weight(j, k), size * std::abs(c.weight(j, k)));
        const Sum to_weight(kScale * (p - target) * c.x(i, k), size * std::abs(c.x(i, k)));
        e.dx[i * width + k].value += to_x.value;
        e.dx[i * width + k].magnitude += to_x.magnitude;
        e.dweight[j * width + k].value += to_weight.value;
        e.dweight[j * width + k].magnitude += to_weight.magnitude;
      }
    }
  }
  return e;
}

}  // namespace

TEST_CASE_TEMPLATE(
    "linear_cross_entropy: loss and gradients agree with plain loops, in one block and in three", T, float,
    double) {
  for (const HeadSizes& n : {kOneBlock, kThreeBlocks}) {
    CAPTURE(n.rows);
    const HeadCase<T> c(n);
    const HeadGradients expected = plain_head(c);
    // Roundings of a logit, of a row's sum and of the sums over rows or vocabulary.
    const double terms = static_cast<double>(n.width + n.rows + n.vocabulary + 8);
    const double allowed =
        tolerance<T>(static_cast<double>(n.width + n.vocabulary + 4), expected.loss.magnitude);
    CHECK(std::abs(c.run({}, {}) - expected.loss.value) <= allowed);
    check_writes<T>(expected.dx, terms, [&](auto& dx, Write write) {
      c.run({Mat<T>(dx.data(), n.rows, n.width), write}, {});
    });
    check_writes<T>(expected.dweight, terms, [&](auto& dweight, Write write) {
      c.run({}, {Mat<T>(dweight.data(), n.vocabulary, n.width), write});
    });
  }
}

TEST_CASE_TEMPLATE("linear_cross_entropy: same bits on any number of threads", T, float, double) {
  const HeadCase<T> c(kThreeBlocks);
  check_threads([&] {
    std::vector<T> gradients(static_cast<std::size_t>((c.x.rows + c.weight.rows) * c.x.cols));
    const Mat<T> dx(gradients.data(), c.x.rows, c.x.cols);
    c.run({dx}, {Mat<T>(gradients.data() + c.x.rows * c.x.cols, c.weight.rows, c.x.cols)});
    return gradients;
  });
}

// In double: products of floats have scratch memory of their own.
TEST_CASE("linear_cross_entropy: one block of logits is alive, and two numbers for each of its rows") {
  for (const HeadSizes& n : {kOneBlock, kThreeBlocks}) {
    const HeadCase<double> c(n);
    std::vector<double> dx(static_cast<std::size_t>(n.rows * n.width));
    const Index before = memory::usage().live;
    memory::reset_peak();
    c.run({Mat<double>(dx.data(), n.rows, n.width)}, {});
    const Index rows = linear_cross_entropy_rows<double>(n.rows, n.vocabulary);
    CHECK(memory::usage().peak - before == rows * (n.vocabulary + 2) * Index{sizeof(double)});
  }
}

TEST_CASE("linear_cross_entropy: blocks are few MiB, or 256 rows, and of about equal size") {
  CHECK(linear_cross_entropy_rows<float>(768, 65) == 768);       // the logits of a small model are one block
  CHECK(linear_cross_entropy_rows<float>(1024, 50'257) == 256);  // those of GPT-2 are four
  CHECK(linear_cross_entropy_rows<float>(1025, 50'257) == 205);  // not 256 and at last 1
  CHECK(linear_cross_entropy_rows<float>(10'000, 1'024) == 1000);  // of at most 1024
  CHECK(linear_cross_entropy_rows<double>(10'000, 1'024) == 500);
  CHECK(linear_cross_entropy_rows<double>(520, 4'200) == 174);
  CHECK(linear_cross_entropy_rows<float>(520, 4'200) == 174);
}

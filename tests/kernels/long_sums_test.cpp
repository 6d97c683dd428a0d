#include <doctest/doctest.h>

#include "tests/kernels/checks.h"
#include "tilegrad/kernels/elementwise.h"
#include "tilegrad/kernels/embedding.h"
#include "tilegrad/kernels/norm.h"

using namespace tilegrad;
using namespace tilegrad::kernels;
using namespace tilegrad::test;

// Positive terms, whose sum in float grows until it swallows them, one after the other. The exact sum is
// taken in double; the allowed error is that of 200 roundings, far less than of a million.
namespace {

constexpr Index kMillion = 1'000'000;
constexpr double kRoundings = 200;

// The roundings of a growing sum of equal terms all err in one direction for long stretches.
std::vector<float> positive() { return std::vector<float>(kMillion, 0.1F); }

Sum exact_sum(const std::vector<float>& x) {
  Sum sum;
  for (const float value : x) sum.add(static_cast<double>(value));
  return sum;
}

}  // namespace

TEST_CASE("long sums: sum and the gradient of a bias over a million rows are as exact as over a hundred" *
          doctest::test_suite("slow")) {
  const std::vector<float> x = positive();
  check_close(std::vector<float>{sum<float>(x)}, {exact_sum(x)}, kRoundings);
  check_writes<float>({exact_sum(x)}, kRoundings, [&](auto& dbias, Write write) {
    add_bias_backward<float>({dbias, write}, Mat<const float>(x.data(), kMillion, 1));
  });
}

TEST_CASE("long sums: so is the gradient of an embedding that one id dominates" *
          doctest::test_suite("slow")) {
  const std::vector<float> x = positive();
  const std::vector<std::int32_t> ids(kMillion, 1);
  check_writes<float>({Sum(), exact_sum(x), Sum()}, kRoundings, [&](auto& dtable, Write write) {
    embedding_backward<float>({Mat<float>(dtable.data(), 3, 1), write},
                              Mat<const float>(x.data(), kMillion, 1), ids);
  });
}

TEST_CASE("long sums: so are the gradients of a norm's weight and bias" * doctest::test_suite("slow")) {
  const std::vector<float> dy = positive(), ones(kMillion, 1.0F), zeros(kMillion, 0.0F), weight = {1.0F};
  const Mat<const float> g(dy.data(), kMillion, 1), x(ones.data(), kMillion, 1);
  check_writes<float>({exact_sum(dy)}, kRoundings, [&](auto& dbias, Write write) {
    layernorm_backward<float>({.dbias = {dbias, write}}, g, x, weight, zeros, ones);
  });
  check_writes<float>({exact_sum(dy)}, kRoundings, [&](auto& dweight, Write write) {
    layernorm_backward<float>({.dweight = {dweight, write}}, g, x, weight, zeros, ones);
  });
  check_writes<float>({exact_sum(dy)}, kRoundings, [&](auto& dweight, Write write) {
    rmsnorm_backward<float>({.dweight = {dweight, write}}, g, x, weight, ones);
  });
}

#include "tilegrad/autograd/tensor.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tilegrad/autograd/saved.h"

using namespace tilegrad;

TEST_CASE("shape: counts, prints, compares and refuses what makes no sense") {
  CHECK(Shape{2, 3, 4}.size() == 24);
  CHECK(Shape{}.size() == 1);
  CHECK(to_string(Shape{2, 3}) == "(2, 3)");
  CHECK(Shape{2, 3}[-1] == 3);
  CHECK(Shape{2, 3}.with(0, 5) == Shape{5, 3});
  CHECK(Shape{2, 3} != Shape{2, 3, 1});
  CHECK_THROWS_WITH_AS((Shape{2, -3}), "shape: axis 1 has negative size -3", Error);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
  CHECK_THROWS_WITH_AS((Shape{1LL << 40, 1LL << 40}), "shape: too many elements", Error);
  CHECK_THROWS_WITH_AS((Shape{2, 3}[2]), "shape: axis 2 of (2, 3) does not exist", Error);
}

TEST_CASE("tensor: copies share their elements, clones do not, and writes are counted") {
  Tensor a = Tensor::from<float>({3}, {1, 2, 3});
  const Tensor shared = a, apart = a.clone();
  const std::uint64_t version = a.version();
  a.mut<float>()[0] = 9;
  CHECK(shared.at(0) == 9);
  CHECK(apart.at(0) == 1);
  CHECK(a.version() == version + 1);
  CHECK_FALSE(a.unique());
  CHECK(apart.unique());
}

TEST_CASE("tensor: the wrong element type, number of values or shape is an error") {
  const Tensor a = Tensor::zeros({2, 3}, Dtype::f32);
  CHECK_THROWS_WITH_AS(a.view<double>(), "tensor: elements are f32, not f64", Error);
  CHECK_THROWS_WITH_AS(Tensor().view<float>(), "tensor: used before it was given a value", Error);
  CHECK_THROWS_WITH_AS(Tensor::from<float>({2}, {1, 2, 3}), "tensor: 3 values do not fill (2)", Error);
  CHECK_THROWS_WITH_AS(a.item(), "item: (2, 3) has 6 elements, not one", Error);
  CHECK_THROWS_AS(Tensor::zeros({2}, Dtype::i32).cast(Dtype::f32), Error);
}

TEST_CASE("tensor: prefix and reshape are views") {
  const Tensor a = Tensor::from<double>({3, 2}, {1, 2, 3, 4, 5, 6});
  CHECK(a.prefix(2).shape() == Shape{2, 2});
  CHECK(a.prefix(2).shares_storage_with(a));
  CHECK(a.reshape({6}).at(5) == 6);
  CHECK(a.reshape({6}).shares_storage_with(a));
}

TEST_CASE("tensor: casts round to nearest and keep NaN") {
  const Tensor a = Tensor::from<float>({4}, {1.0F, 1.00390625F, std::nanf(""), -3.0e38F});
  const Tensor b = a.cast(Dtype::bf16);
  CHECK(b.bytes() == 8);
  CHECK(b.at(0) == 1.0);
  CHECK(b.at(1) == 1.0);  // halfway between two neighbours: to even
  CHECK(std::isnan(b.at(2)));
  CHECK(b.cast(Dtype::f64).at(3) == doctest::Approx(-3.0e38).epsilon(0.01));
  const Tensor c = Tensor::from<double>({4}, {1 + 0x1p-11, 0x1p-24, std::nan(""), -65520.0}).cast(Dtype::f16);
  CHECK(c.bytes() == 8);
  CHECK(c.at(0) == 1.0);
  CHECK(c.at(1) == 0x1p-24);  // the smallest number of f16
  CHECK(std::isnan(c.at(2)));
  CHECK(c.cast(Dtype::f64).at(3) == -std::numeric_limits<double>::infinity());
  CHECK(c.cast(Dtype::bf16).at(1) == 0x1p-24);
}

TEST_CASE("tensor: random numbers depend on the key alone and have the moments asked for") {
  const Tensor a = Tensor::normal({20000}, Dtype::f64, RandomKey{1}, 2.0);
  const Tensor b = Tensor::normal({20000}, Dtype::f32, RandomKey{1}, 2.0);
  double sum = 0, squares = 0;
  for (Index i = 0; i < a.size(); ++i) {
    CHECK(b.at(i) == static_cast<double>(static_cast<float>(a.at(i))));
    sum += a.at(i);
    squares += a.at(i) * a.at(i);
  }
  CHECK(std::abs(sum / 20000) < 5 * 2.0 / std::sqrt(20000));
  CHECK(squares / 20000 == doctest::Approx(4.0).epsilon(0.05));
  CHECK(Tensor::uniform({1}, Dtype::f64, RandomKey{1}).at(0) !=
        Tensor::uniform({1}, Dtype::f64, RandomKey{2}).at(0));
}

TEST_CASE("tensor: memory is counted under the category in force, and given back") {
  const auto before = memory::usage();
  const auto parameters = static_cast<std::size_t>(memory::Category::parameters);
  {
    const memory::CategoryScope scope(memory::Category::parameters);
    const Tensor t = Tensor::empty({1000}, Dtype::f32);
    CHECK(memory::usage().live_by_category[parameters] == before.live_by_category[parameters] + 4000);
  }
  CHECK(memory::usage().live == before.live);
}

TEST_CASE("tensor: one too large for the memory is an error with the requested and the live bytes") {
  CHECK_THROWS_WITH_AS(Tensor::empty({1LL << 50}, Dtype::f32), doctest::Contains("out of memory"), Error);
}

TEST_CASE("saved: counts the bytes that are kept and notices a later write") {
  const Index before = Saved::total_bytes();
  Tensor a = Tensor::zeros({10}, Dtype::f64);
  {
    const Saved saved(a);
    CHECK(Saved::total_bytes() == before + 80);
    CHECK(saved.get("op", "a").shares_storage_with(a));
    a.mut<double>();
    CHECK_THROWS_WITH_AS(saved.get("op", "a"), doctest::Contains("op: saved `a` (10) was modified"), Error);
  }
  CHECK(Saved::total_bytes() == before);
}

#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "tests/tensors.h"
#include "tilegrad/autograd/ops.h"

using namespace tilegrad;
using test::integers;
using test::random;

namespace {

Tensor operand(const Shape& shape, Dtype dtype = Dtype::f64) { return random(shape, 1, dtype); }

void check_refused(const Var& q, const Var& k, const Var& v, const AttentionOptions& options,
                   const AttentionExtras& extras, const char* message) {
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash})
    CHECK_THROWS_WITH_AS(attention(q, k, v, kernel, options, extras), message, Error);
}
void check_refused(const Var& q, const Var& k, const Var& v, const char* message) {
  check_refused(q, k, v, {}, {}, message);
}
// With q (1, 3, 2, 4), k and v (1, 5, 1, 4).
void check_refused(const AttentionOptions& options, const AttentionExtras& extras, const char* message) {
  check_refused(operand({1, 3, 2, 4}), operand({1, 5, 1, 4}), operand({1, 5, 1, 4}), options, extras,
                message);
}

}  // namespace

TEST_CASE("attention: tensors that do not fit are an error that names them") {
  const Var q = operand({1, 3, 4, 8}), k = operand({1, 3, 2, 8});
  check_refused(q, operand({3, 2, 8}), k,
                "attention: q, k and v are (B, T, H, D), not (1, 3, 4, 8), (3, 2, 8) and (1, 3, 2, 8)");
  check_refused(q, operand({1, 3, 2, 8}, Dtype::f32), k, "attention: dtypes differ: f64 and f32");
  check_refused(q, k, operand({1, 3, 2, 8}, Dtype::f32), "attention: dtypes differ: f64 and f32");
  check_refused(
      q, operand({2, 3, 2, 8}), operand({2, 3, 2, 8}),
      "attention: batch, length or heads differ: q is (1, 3, 4, 8), k is (2, 3, 2, 8), v is (2, 3, 2, 8)");
  check_refused(
      q, k, operand({1, 5, 2, 8}),
      "attention: batch, length or heads differ: q is (1, 3, 4, 8), k is (1, 3, 2, 8), v is (1, 5, 2, 8)");
  check_refused(
      q, k, operand({1, 3, 4, 8}),
      "attention: batch, length or heads differ: q is (1, 3, 4, 8), k is (1, 3, 2, 8), v is (1, 3, 4, 8)");
  check_refused(q, operand({1, 3, 2, 7}), k,
                "attention: head sizes differ: q is (1, 3, 4, 8), k is (1, 3, 2, 7)");
  check_refused(q, operand({1, 3, 3, 8}), operand({1, 3, 3, 8}),
                "attention: 3 key/value heads do not divide 4 query heads");
  check_refused(q, operand({1, 3, 0, 8}), operand({1, 3, 0, 8}),
                "attention: 0 key/value heads do not divide 4 query heads");
}

TEST_CASE("attention: options that make no sense are an error that says why") {
  check_refused({.dropout = 1}, {}, "attention: dropout is 1, not in [0, 1)");
  check_refused({.dropout = -0.5}, {}, "attention: dropout is -0.5, not in [0, 1)");
  check_refused({.softcap = -1.0}, {}, "attention: softcap is -1, must be positive");
  check_refused({.softcap = 0.0}, {}, "attention: softcap is 0, must be positive");
  check_refused({.window = {.left = -1}}, {},
                "attention: the window reaches -1 to the left and 0 to the right, neither may be negative");
  check_refused({.window = {.left = 2, .right = -3}}, {},
                "attention: the window reaches 2 to the left and -3 to the right, neither may be negative");
  check_refused({.causal = true, .window = {.right = 2}}, {},
                "attention: causal sees nothing to the right, the window reaches 2");
  check_refused({.tiles = {-1, 8}}, {}, "attention: tiles of -1 queries and 8 keys");
  check_refused({.tiles = {8, -1}}, {}, "attention: tiles of 8 queries and -1 keys");
}

TEST_CASE("attention: a scale or softcap is an error if it is none in the type that computes") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const auto check_both = [](const AttentionOptions& options, const std::string& f32,
                             const std::string& f64) {
    const auto refused = [&](Dtype dtype) -> std::string {
      try {
        const Tensor x = operand({1, 3, 2, 4}, Dtype::f32).cast(dtype);
        attention(x, x, x, AttentionKernel::flash, options);
      } catch (const Error& e) {
        return e.what();
      }
      return "";
    };
    CHECK(refused(Dtype::f32) == f32);
    CHECK(refused(Dtype::bf16) == f32);
    CHECK(refused(Dtype::f64) == f64);
  };
  check_both({.scale = nan}, "attention: scale is nan, must be finite in f32",
             "attention: scale is nan, must be finite in f64");
  check_both({.scale = 1e60}, "attention: scale is 1e+60, must be finite in f32", "");
  check_both({.scale = 1e-60}, "", "");  // 0 in f32: all keys weigh the same
  check_both({.softcap = inf}, "attention: softcap is inf, not in [1.2e-38, 8.5e+37], the range of f32",
             "attention: softcap is inf, not in [2.2e-308, 4.5e+307], the range of f64");
  check_both({.softcap = 1e300}, "attention: softcap is 1e+300, not in [1.2e-38, 8.5e+37], the range of f32",
             "");
  check_both({.softcap = 1e-300}, "attention: softcap is 1e-300, not in [1.2e-38, 8.5e+37], the range of f32",
             "");
  check_both({.softcap = nan}, "attention: softcap is nan, must be positive",
             "attention: softcap is nan, must be positive");
  check_both({.dropout = nan}, "attention: dropout is nan, not in [0, 1)",
             "attention: dropout is nan, not in [0, 1)");
}

TEST_CASE("attention: sizes beyond the BLAS of the naive kernel are an error, and none to flash") {
  constexpr Index large = Index{1} << 31;
  const auto attend = [](AttentionKernel kernel, Index heads, Index dim, Index dim_v) {
    const Tensor q = Tensor::empty({0, 1, heads, dim}, Dtype::f32),
                 k = Tensor::empty({0, 1, 1, dim}, Dtype::f32);
    attention(q, k, Tensor::empty({0, 1, 1, dim_v}, Dtype::f32), kernel);
  };
  CHECK_THROWS_WITH_AS(
      attend(AttentionKernel::naive, large, 1, 1),
      "attention: q is (0, 1, 2147483648, 1), too large for naive attention: T and H · D may be at "
      "most 2147483647; flash has no such limit",
      Error);
  CHECK_THROWS_WITH_AS(
      attend(AttentionKernel::naive, 1 << 16, 1, 1 << 16),
      "attention: out is (0, 1, 65536, 65536), too large for naive attention: T and H · D may be at "
      "most 2147483647; flash has no such limit",
      Error);
  attend(AttentionKernel::naive, 8, 4, 4);
  attend(AttentionKernel::flash, 1 << 16, 1, 1 << 16);
}

TEST_CASE("attention: a bias, mask, sinks or slopes that do not fit are an error that names what would") {
  check_refused({}, {.bias = operand({1, 1, 3, 4})},
                "attention: bias is (1, 1, 3, 4), not (1 or 1, 1 or 2, 3, 5)");
  check_refused({}, {.bias = operand({1, 1, 3, 5}, Dtype::f32)}, "attention: bias is f32, not f64");
  check_refused({}, {.mask = Tensor::empty({2, 1, 3, 5}, Dtype::u8)},
                "attention: mask is (2, 1, 3, 5), not (1 or 1, 1 or 2, 3, 5)");
  check_refused({}, {.mask = operand({1, 1, 3, 5})}, "attention: mask is f64, not u8");
  check_refused({}, {.sinks = operand({3})}, "attention: sinks is f64 (3), not f64 (2)");
  check_refused({}, {.sinks = operand({2}, Dtype::f32)}, "attention: sinks is f32 (2), not f64 (2)");
  check_refused({}, {.alibi = operand({1})}, "attention: alibi is f64 (1), not f64 (2)");
}

TEST_CASE(
    "attention: key lengths and packed sequences that contradict the tensors are an error that says why") {
  check_refused({}, {.k_lengths = integers({5, 5})}, "attention: k_lengths is i32 (2), not i32 (1)");
  check_refused({}, {.k_lengths = operand({1})}, "attention: k_lengths is f64 (1), not i32 (1)");
  check_refused({}, {.k_lengths = integers({6})}, "attention: a key length is 6, not in [0, 5]");
  check_refused({}, {.k_lengths = integers({-1})}, "attention: a key length is -1, not in [0, 5]");
  const Tensor cu_q = integers({0, 3}), cu_k = integers({0, 5});
  check_refused({}, {.cu_q = cu_q}, "attention: cu_q and cu_k go together, cu_k is missing");
  check_refused({}, {.cu_k = cu_k}, "attention: cu_q and cu_k go together, cu_q is missing");
  check_refused({}, {.k_lengths = integers({5}), .cu_q = cu_q, .cu_k = cu_k},
                "attention: packed sequences have lengths of their own, k_lengths would contradict them");
  check_refused({}, {.cu_q = operand({2}), .cu_k = cu_k},
                "attention: cu_q is f64 (2), not i32 (sequences + 1)");
  check_refused({}, {.cu_q = cu_q, .cu_k = integers({0})},
                "attention: cu_k is i32 (1), not i32 (sequences + 1)");
  check_refused({}, {.cu_q = integers({1, 3}), .cu_k = cu_k},
                "attention: cu_q runs from 1 to 3, not from 0 to 3");
  check_refused({}, {.cu_q = cu_q, .cu_k = integers({0, 2})},
                "attention: cu_k runs from 0 to 2, not from 0 to 5");
  check_refused({}, {.cu_q = integers({0, 2, 1, 3}), .cu_k = cu_k}, "attention: cu_q falls from 2 to 1");
  check_refused({}, {.cu_q = cu_q, .cu_k = integers({0, 2, 5})}, "attention: cu_q has 1 sequences, cu_k 2");
  const Var x = operand({2, 3, 2, 4});
  check_refused(x, x, x, {}, {.cu_q = cu_q, .cu_k = cu_q}, "attention: packed sequences have batch 1, not 2");
}

#include <doctest/doctest.h>

#include "tilegrad/autograd/ops.h"

using namespace tilegrad;

namespace {

Tensor random(const Shape& shape, Dtype dtype = Dtype::f64) {
  return Tensor::normal(shape, dtype, RandomKey{1});
}
Tensor offsets(std::initializer_list<std::int32_t> values) {
  return Tensor::from<std::int32_t>({static_cast<Index>(values.size())}, values);
}

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
  check_refused(random({1, 3, 2, 4}), random({1, 5, 1, 4}), random({1, 5, 1, 4}), options, extras, message);
}

}  // namespace

TEST_CASE("attention: tensors that do not fit are an error that names them") {
  const Var q = random({1, 3, 4, 8}), k = random({1, 3, 2, 8});
  check_refused(q, random({3, 2, 8}), k,
                "attention: q, k and v are (B, T, H, D), not (1, 3, 4, 8), (3, 2, 8) and (1, 3, 2, 8)");
  check_refused(q, random({1, 3, 2, 8}, Dtype::f32), k, "attention: dtypes differ: f64 and f32");
  check_refused(q, k, random({1, 3, 2, 8}, Dtype::f32), "attention: dtypes differ: f64 and f32");
  check_refused(
      q, random({2, 3, 2, 8}), random({2, 3, 2, 8}),
      "attention: batch, length or heads differ: q is (1, 3, 4, 8), k is (2, 3, 2, 8), v is (2, 3, 2, 8)");
  check_refused(
      q, k, random({1, 5, 2, 8}),
      "attention: batch, length or heads differ: q is (1, 3, 4, 8), k is (1, 3, 2, 8), v is (1, 5, 2, 8)");
  check_refused(
      q, k, random({1, 3, 4, 8}),
      "attention: batch, length or heads differ: q is (1, 3, 4, 8), k is (1, 3, 2, 8), v is (1, 3, 4, 8)");
  check_refused(q, random({1, 3, 2, 7}), k,
                "attention: head sizes differ: q is (1, 3, 4, 8), k is (1, 3, 2, 7)");
  check_refused(q, random({1, 3, 3, 8}), random({1, 3, 3, 8}),
                "attention: 3 key/value heads do not divide 4 query heads");
  check_refused(q, random({1, 3, 0, 8}), random({1, 3, 0, 8}),
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

TEST_CASE("attention: a bias, mask, sinks or slopes that do not fit are an error that names what would") {
  check_refused({}, {.bias = random({1, 1, 3, 4})},
                "attention: bias is (1, 1, 3, 4), not (1 or 1, 1 or 2, 3, 5)");
  check_refused({}, {.bias = random({1, 1, 3, 5}, Dtype::f32)}, "attention: bias is f32, not f64");
  check_refused({}, {.mask = Tensor::empty({2, 1, 3, 5}, Dtype::u8)},
                "attention: mask is (2, 1, 3, 5), not (1 or 1, 1 or 2, 3, 5)");
  check_refused({}, {.mask = random({1, 1, 3, 5})}, "attention: mask is f64, not u8");
  check_refused({}, {.sinks = random({3})}, "attention: sinks is f64 (3), not f64 (2)");
  check_refused({}, {.sinks = random({2}, Dtype::f32)}, "attention: sinks is f32 (2), not f64 (2)");
  check_refused({}, {.alibi = random({1})}, "attention: alibi is f64 (1), not f64 (2)");
}

TEST_CASE(
    "attention: key lengths and packed sequences that contradict the tensors are an error that says why") {
  check_refused({}, {.k_lengths = offsets({5, 5})}, "attention: k_lengths is i32 (2), not i32 (1)");
  check_refused({}, {.k_lengths = random({1})}, "attention: k_lengths is f64 (1), not i32 (1)");
  check_refused({}, {.k_lengths = offsets({6})}, "attention: a key length is 6, not in [0, 5]");
  check_refused({}, {.k_lengths = offsets({-1})}, "attention: a key length is -1, not in [0, 5]");
  const Tensor cu_q = offsets({0, 3}), cu_k = offsets({0, 5});
  check_refused({}, {.cu_q = cu_q}, "attention: cu_q and cu_k go together, cu_k is missing");
  check_refused({}, {.cu_k = cu_k}, "attention: cu_q and cu_k go together, cu_q is missing");
  check_refused({}, {.k_lengths = offsets({5}), .cu_q = cu_q, .cu_k = cu_k},
                "attention: packed sequences have lengths of their own, k_lengths would contradict them");
  check_refused({}, {.cu_q = random({2}), .cu_k = cu_k},
                "attention: cu_q is f64 (2), not i32 (sequences + 1)");
  check_refused({}, {.cu_q = cu_q, .cu_k = offsets({0})},
                "attention: cu_k is i32 (1), not i32 (sequences + 1)");
  check_refused({}, {.cu_q = offsets({1, 3}), .cu_k = cu_k},
                "attention: cu_q runs from 1 to 3, not from 0 to 3");
  check_refused({}, {.cu_q = cu_q, .cu_k = offsets({0, 2})},
                "attention: cu_k runs from 0 to 2, not from 0 to 5");
  check_refused({}, {.cu_q = offsets({0, 2, 1, 3}), .cu_k = cu_k}, "attention: cu_q falls from 2 to 1");
  check_refused({}, {.cu_q = cu_q, .cu_k = offsets({0, 2, 5})}, "attention: cu_q has 1 sequences, cu_k 2");
  const Var x = random({2, 3, 2, 4});
  check_refused(x, x, x, {}, {.cu_q = cu_q, .cu_k = cu_q}, "attention: packed sequences have batch 1, not 2");
}

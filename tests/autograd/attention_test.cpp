#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "tests/autograd/attention_composition.h"
#include "tests/tensors.h"
#include "tilegrad/autograd/gradcheck.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/parallel.h"

using namespace tilegrad;
using test::random;

namespace {

constexpr AttentionKernel kKernels[] = {AttentionKernel::naive, AttentionKernel::flash};

// Tq and Tk.
struct Lengths {
  Index q, k;
};

struct Gradients {
  Tensor out, dq, dk, dv;
};

template <class F>
Gradients gradients(F&& f, const Tensor& q, const Tensor& k, const Tensor& v) {
  const Var ql = Var::leaf(q), kl = Var::leaf(k), vl = Var::leaf(v);
  Tape tape;
  const Var out = f(ql, kl, vl);
  tape.backward(out, random(out.shape(), 99));
  return {out.value(), ql.grad(), kl.grad(), vl.grad()};
}

void check_close(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  for (Index i = 0; i < a.size(); ++i)
    REQUIRE(std::abs(a.at(i) - b.at(i)) <= 1e-12 * (1 + std::abs(b.at(i))));
}

}  // namespace

TEST_CASE("attention: naive and flash equal the composition of primitive ops, forward and backward") {
  for (const AttentionKernel kernel : kKernels) {
    for (const Index kv_heads : {4, 2, 1}) {
      for (const Lengths t : {Lengths{9, 9}, Lengths{5, 11}}) {
        for (const bool causal : {false, true}) {
          CAPTURE(kv_heads);
          CAPTURE(t.k);
          CAPTURE(causal);
          const AttentionOptions options = {.causal = causal, .tiles = {4, 4}};
          const Tensor q = random({2, t.q, 4, 6}, 1), k = random({2, t.k, kv_heads, 6}, 2),
                       v = random({2, t.k, kv_heads, 5}, 3);
          const auto fused = gradients([&](auto... x) { return attention(x..., kernel, options); }, q, k, v);
          const auto plain = gradients(
              [&](auto... x) { return test::AttentionComposition(options, {}, q, k).out(x...); }, q, k, v);
          check_close(fused.out, plain.out);
          check_close(fused.dq, plain.dq);
          check_close(fused.dk, plain.dk);
          check_close(fused.dv, plain.dv);
        }
      }
    }
  }
}

TEST_CASE("attention: gradients match finite differences") {
  for (const AttentionKernel kernel : kKernels) {
    for (const Index kv_heads : {4, 2, 1}) {
      for (const Lengths t : {Lengths{3, 3}, Lengths{2, 4}, Lengths{4, 2}}) {
        for (const Align align : {Align::bottom_right, Align::top_left}) {
          const AttentionOptions options = {
              .causal = true, .align = align, .dropout = 0.2, .dropout_key = RandomKey{5}, .tiles = {2, 2}};
          const auto result =
              gradcheck([&](auto in) { return attention(in[0], in[1], in[2], kernel, options); },
                        {random({1, t.q, 4, 3}, 1), random({1, t.k, kv_heads, 3}, 2),
                         random({1, t.k, kv_heads, 2}, 3)});
          CAPTURE(result.worst);
          CHECK(result.passed);
        }
      }
    }
  }
}

TEST_CASE("attention: flash memory grows linearly with the length, naive quadratically") {
  const kernels::ThreadScope scope(2);  // each has tiles of its own
  // Bytes beyond inputs, output and gradients, at the highest point of forward and backward, with tiles of one size.
  const auto extra = [](AttentionKernel kernel, Index t) {
    const Tensor q = random({1, t, 2, 16}, 1, Dtype::f32), k = random({1, t, 2, 16}, 2, Dtype::f32),
                 v = random({1, t, 2, 16}, 3, Dtype::f32), dout = random({1, t, 2, 16}, 4, Dtype::f32);
    const Var ql = Var::leaf(q), kl = Var::leaf(k), vl = Var::leaf(v);
    const Index before = memory::usage().live;
    memory::reset_peak();
    Tape tape;
    tape.backward(attention(ql, kl, vl, kernel, {.causal = true, .tiles = {32, 32}}), dout);
    return memory::usage().peak - before - 4 * q.bytes();
  };
  const Index naive = extra(AttentionKernel::naive, 256), naive_twice = extra(AttentionKernel::naive, 512);
  const Index flash = extra(AttentionKernel::flash, 256), flash_twice = extra(AttentionKernel::flash, 512);
  // Of naive, what grows linearly cancels: two of four times the probabilities of two heads are left.
  const Index probabilities = 2 * 256 * 256 * bytes_of(Dtype::f32);
  CHECK(10 * (naive_twice - 2 * naive) > 19 * probabilities);
  CHECK(10 * flash_twice < 21 * flash);
  CHECK(naive_twice > 10 * flash_twice);
  // lse, and in backward one more number for each row of two heads
  CHECK(flash_twice - flash <= 2 * 2 * 256 * bytes_of(Dtype::f32));
}

TEST_CASE("attention: only the gradients that are wanted are computed") {
  const Tensor q = random({1, 3, 2, 4}, 1), k = random({1, 3, 2, 4}, 2), v = random({1, 3, 2, 4}, 3);
  const auto all = gradients([](auto... x) { return attention(x..., AttentionKernel::flash); }, q, k, v);
  for (const AttentionKernel kernel : kKernels) {
    const Var vl = Var::leaf(v);
    Tape tape;
    tape.backward(attention(q, k, vl, kernel), random({1, 3, 2, 4}, 99));
    check_close(vl.grad(), all.dv);
  }
}

TEST_CASE(
    "attention in 16 bits: out and gradients are stored so, lse is f32; a value that stands three times adds "
    "up") {
  const auto check_with = [](Dtype narrow, AttentionKernel kernel, double least, double most) {
    CAPTURE(narrow);
    const Tensor x = random({2, 40, 4, 16}, 1, Dtype::f32).cast(narrow);
    const auto run = [&](Dtype dtype) {
      const Var leaf = Var::leaf(x.cast(dtype));
      Tape tape;
      const AttentionResult y = attention_with_lse(leaf, leaf, leaf, kernel, {.causal = true});
      CHECK(y.lse.dtype() == Dtype::f32);
      tape.backward(y.out, random(x.shape(), 2, Dtype::f32).cast(dtype));
      return std::array{y.out.value(), leaf.grad()};
    };
    const auto stored = run(narrow), exact = run(Dtype::f32);
    for (std::size_t n = 0; n < stored.size(); ++n) {
      CHECK(stored[n].dtype() == narrow);
      double largest = 0;
      for (Index i = 0; i < x.size(); ++i)
        largest =
            std::max(largest, std::abs(stored[n].at(i) - exact[n].at(i)) / (1 + std::abs(exact[n].at(i))));
      CHECK(largest > least);
      CHECK(largest < most);
    }
  };
  for (const AttentionKernel kernel : kKernels) {
    check_with(Dtype::bf16, kernel, 1e-4, .02);
    check_with(Dtype::f16, kernel, 1e-5, .004);
  }
}

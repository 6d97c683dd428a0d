// The solutions of the course agree with the library's kernels, so that the course cannot drift from what it teaches.
#include <doctest/doctest.h>

#include "learn_references.h"  // namespace reference: all solutions, cut from learn/exercises
#include "tests/close.h"
#include "tilegrad/attention.h"

namespace tilegrad {

namespace {

struct Problem {
  Index tq, tk, hq, hkv, dim;
  bool causal;
};

const std::vector<Problem> kProblems = {{5, 7, 1, 1, 1, false}, {7, 7, 1, 1, 59, true},
                                        {9, 5, 1, 1, 4, true},  {33, 65, 4, 2, 3, true},
                                        {6, 5, 6, 1, 8, false}, {4, 9, 3, 3, 5, true}};

// One call of the library in f64, with a random cotangent.
struct Call {
  Var q, k, v;
  Tensor dout, out, lse;

  Call(const Problem& p, AttentionKernel kernel)
      : q(Var::leaf(Tensor::normal({1, p.tq, p.hq, p.dim}, Dtype::f64, RandomKey{1}))),
        k(Var::leaf(Tensor::normal({1, p.tk, p.hkv, p.dim}, Dtype::f64, RandomKey{2}))),
        v(Var::leaf(Tensor::normal({1, p.tk, p.hkv, p.dim}, Dtype::f64, RandomKey{3}))),
        dout(Tensor::normal({1, p.tq, p.hq, p.dim}, Dtype::f64, RandomKey{4})) {
    Tape tape;
    const auto [o, l] = attention_with_lse(q, k, v, kernel, {.causal = p.causal});
    out = o.value();
    lse = l.value();
    tape.backward(o, dout);
  }
};

course::ConstHeads heads_of(const Tensor& t) {
  return {t.view<double>().data(), static_cast<int>(t.dim(1)), static_cast<int>(t.dim(2)),
          static_cast<int>(t.dim(3))};
}

// The same shape, to be written by a solution.
struct Buffer {
  std::vector<double> numbers;
  course::Heads heads;

  explicit Buffer(const Tensor& like)
      : numbers(static_cast<std::size_t>(like.size()), 777),
        heads{numbers.data(), heads_of(like).time, heads_of(like).heads, heads_of(like).dim} {}
};

void check_equal(const char* what, const std::vector<double>& mine, const Tensor& library) {
  CAPTURE(what);
  const auto theirs = library.view<double>();
  REQUIRE(mine.size() == theirs.size());
  // Two orders of summing up to 65 numbers of about 1, and what follows from it; nine of sixteen digits.
  for (std::size_t i = 0; i < mine.size(); ++i) {
    CHECK((mine[i] == theirs[i] || std::abs(mine[i] - theirs[i]) <= 1e-9));
  }
}

void check_flash(const Problem& p, const Call& call) {
  const auto q = heads_of(call.q.value()), k = heads_of(call.k.value()), v = heads_of(call.v.value());
  const auto dout = heads_of(call.dout);
  Buffer out(call.out), dq(call.q.value()), dk(call.k.value()), dv(call.v.value());
  std::vector<double> lse(static_cast<std::size_t>(p.hq * p.tq));
  const course::Matrix lse_rows(lse.data(), q.heads, q.time);
  reference::grouped_forward(out.heads, lse_rows, q, k, v, p.causal);
  reference::grouped_backward(dq.heads, dk.heads, dv.heads, dout, q, k, v, out.heads, lse_rows, p.causal);
  check_equal("out", out.numbers, call.out);
  check_equal("lse", lse, call.lse);
  check_equal("dq", dq.numbers, call.q.grad());
  check_equal("dk", dk.numbers, call.k.grad());
  check_equal("dv", dv.numbers, call.v.grad());
}

void check_naive(const Problem& p, const Call& call) {
  if (p.hq > 1) return;
  const auto q = heads_of(call.q.value()).head(0), k = heads_of(call.k.value()).head(0);
  const auto v = heads_of(call.v.value()).head(0);
  Buffer out(call.out), dq(call.q.value()), dk(call.k.value()), dv(call.v.value());
  std::vector<double> lse(static_cast<std::size_t>(p.tq)), weights(static_cast<std::size_t>(p.tq * p.tk));
  const course::Matrix weight_rows(weights.data(), q.rows, k.rows);
  reference::attention(out.heads.head(0), course::Vector(lse), weight_rows, q, k, v, p.causal);
  reference::attention_backward(dq.heads.head(0), dk.heads.head(0), dv.heads.head(0),
                                heads_of(call.dout).head(0), q, k, v, weight_rows);
  check_equal("out", out.numbers, call.out);
  check_equal("lse", lse, call.lse);
  check_equal("dq", dq.numbers, call.q.grad());
  check_equal("dk", dk.numbers, call.k.grad());
  check_equal("dv", dv.numbers, call.v.grad());
}

}  // namespace

TEST_CASE("course: the solutions for attention agree with the library's naive and flash attention") {
  for (const Problem& p : kProblems) {
    for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
      CAPTURE(p.tq);
      CAPTURE(p.tk);
      const Call call(p, kernel);
      check_flash(p, call);
      check_naive(p, call);
    }
  }
}

TEST_CASE("course: the solution for softmax and its backward agrees with the op") {
  const Var x = Var::leaf(Tensor::normal({13}, Dtype::f64, RandomKey{5}));
  const Tensor dy = Tensor::normal({13}, Dtype::f64, RandomKey{6});
  Tape tape;
  const Var y = softmax(x);
  tape.backward(y, dy);
  std::vector<double> mine(x.value().view<double>().begin(), x.value().view<double>().end()), dx(13);
  reference::softmax(course::Vector(mine));
  check_equal("y", mine, y.value());
  reference::softmax_backward(course::Vector(dx), course::Vector(mine), {dy.view<double>().data(), 13});
  check_equal("dx", dx, x.grad());
}

TEST_CASE("course: merging the halves of the keys gives the library's attention over all of them") {
  const Call call({1, 12, 1, 1, 5, false}, AttentionKernel::flash);
  const auto q = heads_of(call.q.value()).head(0), k = heads_of(call.k.value()).head(0);
  const auto v = heads_of(call.v.value()).head(0);
  std::vector<double> o(5), out(5);
  course::Online row = {-course::kInfinity, 0, course::Vector(o)};
  for (int j = 0; j < k.rows; ++j) {
    std::vector<double> value(v.row(j).data, v.row(j).data + 5);
    reference::merge(row, {dot(q.row(0), k.row(j)) / std::sqrt(5), 1, course::Vector(value)});
  }
  double lse = 0;
  reference::finish(course::Vector(out), lse, row);
  check_equal("out", out, call.out);
  check_equal("lse", {lse}, call.lse);
}

}  // namespace tilegrad

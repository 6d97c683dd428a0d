// Exercise 2: attention forward, as on paper. The page is 02_naive_forward.md.
#include "course.h"

// q (Tq, D), k and v (Tk, D) -> out (Tq, D), lse (Tq), p (Tq, Tk). All of it is overwritten.
void attention(Matrix out, Vector lse, Matrix p, ConstMatrix q, ConstMatrix k, ConstMatrix v, bool causal) {
  // BEGIN SOLUTION
  const double scale = 1 / std::sqrt(q.cols);
  //! scale-forgotten: const double scale = 1;
  //! scale-without-root: const double scale = 1.0 / q.cols;
  for (int i = 0; i < q.rows; ++i) {
    const int end = causal ? std::max(0, i + k.rows - q.rows + 1) : k.rows;
    //! top-left: const int end = causal ? std::min(i + 1, k.rows) : k.rows;
    //! own-position: const int end = causal ? std::max(0, i + k.rows - q.rows) : k.rows;
    double largest = -kInfinity, sum = 0;
    for (int j = 0; j < k.rows; ++j) {
      p(i, j) = j < end ? scale * dot(q.row(i), k.row(j)) : -kInfinity;
      largest = std::max(largest, p(i, j));
    }
    for (int j = 0; j < k.rows; ++j) {
      p(i, j) = j < end ? std::exp(p(i, j) - largest) : 0;
      sum += p(i, j);
    }
    lse(i) = largest + std::log(sum);
    //! lse-without-maximum: lse(i) = std::log(sum);
    //! lse-is-the-sum: lse(i) = sum;
    fill(out.row(i), 0);
    for (int j = 0; j < end; ++j) {
      p(i, j) /= sum;
      add(out.row(i), p(i, j), v.row(j));
      //! not-divided: add(out.row(i), p(i, j) * sum, v.row(j));
    }
  }
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  void (*attention)(Matrix out, Vector lse, Matrix p, ConstMatrix q, ConstMatrix k, ConstMatrix v,
                    bool causal);
};

const std::vector<Mistake> kMistakes = {
    {"scale-forgotten", "the scores are not multiplied by scale = 1/sqrt(D)"},
    {"scale-without-root", "the scores are multiplied by 1/D; scale is 1/sqrt(D)"},
    {"top-left",
     "the causal mask is aligned top left, j <= i; here the last query sees the last key: "
     "j <= i + Tk - Tq"},
    {"own-position",
     "a causal query does not see the key at its own position: j < i + Tk - Tq instead of <="},
    {"lse-without-maximum",
     "lse is log(sum) alone; the maximum that was subtracted before exp has to return"},
    {"lse-is-the-sum", "lse is the sum itself, without the logarithm and the maximum"},
    {"not-divided", "out adds up exp(s - max) v, not p v: it is not divided by the sum"},
};

const std::vector<Case> kCases = attention_cases();

Tensors inputs(const Case& c) { return attention_inputs(c); }

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  Tensors out = {Tensor("p", c.tq, c.tk), Tensor("lse", c.tq), Tensor("out", c.tq, c.d)};
  f.attention(out[2].matrix(), out[1].vector(), out[0].matrix(), in[0].matrix(), in[1].matrix(),
              in[2].matrix(), c.causal);
  return out;
}

}  // namespace check

// Exercise 3: attention backward, as on paper. The page is 03_naive_backward.md.
#include "course.h"

// dq (Tq, D), dk and dv (Tk, D), all overwritten, from dout (Tq, D), the inputs, and p (Tq, Tk) of exercise 2.
// p is 0 wherever a key is masked.
void attention_backward(Matrix dq, Matrix dk, Matrix dv, ConstMatrix dout, ConstMatrix q, ConstMatrix k,
                        ConstMatrix v, ConstMatrix p) {
  // BEGIN SOLUTION
  const double scale = 1 / std::sqrt(q.cols);
  //! scale-forgotten: const double scale = 1;
  fill(dq, 0);
  fill(dk, 0);
  fill(dv, 0);
  for (int i = 0; i < q.rows; ++i) {
    double delta = 0;
    for (int j = 0; j < k.rows; ++j) delta += p(i, j) * dot(dout.row(i), v.row(j));
    //! delta-forgotten:
    //! delta-without-p: for (int j = 0; j < k.rows; ++j) delta += dot(dout.row(i), v.row(j));
    for (int j = 0; j < k.rows; ++j) {
      const double dp = dot(dout.row(i), v.row(j));
      const double ds = p(i, j) * (dp - delta);
      //! p-in-place: const double ds = p(i, j); (void)dp; (void)delta;
      //! p-left-out: const double ds = dp - delta;
      add(dv.row(j), p(i, j), dout.row(i));
      //! dv-from-ds: add(dv.row(j), ds, dout.row(i));
      add(dq.row(i), scale * ds, k.row(j));
      add(dk.row(j), scale * ds, q.row(i));
    }
  }
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  void (*attention_backward)(Matrix dq, Matrix dk, Matrix dv, ConstMatrix dout, ConstMatrix q, ConstMatrix k,
                             ConstMatrix v, ConstMatrix p);
};

const std::vector<Mistake> kMistakes = {
    {"scale-forgotten", "dq and dk are not multiplied by scale: S = scale Q K^T"},
    {"delta-forgotten", "dS = P dP: the sum over the row, delta_i, is not subtracted from dP"},
    {"delta-without-p", "delta_i is the sum of dp_ik instead of that of p_ik dp_ik"},
    {"p-in-place", "dS is P alone, in place of P (dP - delta)"},
    {"p-left-out", "dS is dP - delta, not multiplied by P"},
    {"dv-from-ds", "dV is made of dS instead of P: dV = P^T dO"},
};

const std::vector<Case> kCases = attention_cases();

Tensors inputs(const Case& c) { return attention_inputs(c); }

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  const Forward forward(c, in);
  const Tensor p = forward.probabilities(in);
  Tensors out = attention_gradients(c);
  f.attention_backward(out[1].matrix(), out[2].matrix(), out[0].matrix(), in[3].matrix(), in[0].matrix(),
                       in[1].matrix(), in[2].matrix(), p.matrix());
  return out;
}

double loss(const Case& c, Tensors& in) { return attention_loss(c, in); }

}  // namespace check

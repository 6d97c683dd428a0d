// Exercise 1: softmax and its backward. The page is 01_softmax.md.
#include "course.h"

// x becomes softmax(x), in place. An element of -infinity becomes 0; a row of nothing else becomes all zeros.
void softmax(Vector x) {
  // BEGIN SOLUTION
  double largest = -kInfinity, sum = 0;
  for (int i = 0; i < x.size; ++i) largest = std::max(largest, x(i));
  //! no-maximum: largest = 0;
  if (largest == -kInfinity) return fill(x, 0);
  //! blind-row:
  for (int i = 0; i < x.size; ++i) {
    x(i) = std::exp(x(i) - largest);
    sum += x(i);
  }
  for (int i = 0; i < x.size; ++i) x(i) /= sum;
  //! not-divided:
  // END SOLUTION
}

// dx (overwritten) from y = softmax(x) and dy.
void softmax_backward(Vector dx, ConstVector y, ConstVector dy) {
  // BEGIN SOLUTION
  const double sum = dot(y, dy);
  //! sum-forgotten: const double sum = 0;
  //! sum-without-y: double sum = 0; for (int i = 0; i < y.size; ++i) sum += dy(i);
  for (int i = 0; i < y.size; ++i) dx(i) = y(i) * (dy(i) - sum);
  //! diagonal-only: (void)sum; for (int i = 0; i < y.size; ++i) dx(i) = y(i) * (1 - y(i)) * dy(i);
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  void (*softmax)(Vector x);
  void (*softmax_backward)(Vector dx, ConstVector y, ConstVector dy);
};

const std::vector<Mistake> kMistakes = {
    {"no-maximum", "the largest element is not subtracted before exp, and exp(1000) is infinite"},
    {"blind-row", "a row of -infinity alone is not looked for, and -infinity - (-infinity) is not a number"},
    {"not-divided", "the exponentials are not divided by their sum"},
    {"sum-forgotten", "softmax_backward leaves out the sum of y_k dy_k: dx = y dy"},
    {"sum-without-y", "softmax_backward subtracts the sum of dy_k instead of that of y_k dy_k"},
    {"diagonal-only", "softmax_backward has y_i (1 - y_i) dy_i: x_i changes the other y_k too"},
};

const std::vector<Case> kCases = {
    {.tk = 1, .seed = 1},
    {.tk = 4, .seed = 2},
    {.tk = 59, .seed = 3},
    {.title = "elements around 1000", .tk = 7, .seed = 4, .shift = 1000},
    {.title = "elements around -1000", .tk = 7, .seed = 5, .shift = -1000},
    {.title = "a third of the elements -infinity", .tk = 9, .seed = 6, .masked = 3},
    {.title = "all elements -infinity", .tk = 5, .seed = 7, .masked = 1}};

Tensors inputs(const Case& c) {
  Draw draw(c.seed);
  Tensors in = {draw.tensor("x", c.tk), draw.tensor("dy", c.tk)};
  for (int i = 0; i < c.tk; ++i) {
    in[0].data[i] += c.shift;
    if (c.masked > 0 && i % c.masked == 0) in[0].data[i] = -kInfinity;
  }
  return in;
}

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  Tensors out = {Tensor("softmax(x)", c.tk), Tensor("dx", c.tk, "x")};
  out[0].data = in[0].data;
  f.softmax(out[0].vector());
  Tensor y("y", c.tk);  // the right one, so that each function is tested alone
  y.data = in[0].data;
  reference::softmax(y.vector());
  f.softmax_backward(out[1].vector(), y.vector(), in[1].vector());
  return out;
}

double loss(const Case& c, Tensors& in) {
  Tensor y("y", c.tk);
  y.data = in[0].data;
  reference::softmax(y.vector());
  return dot(y.vector(), in[1].vector());
}

}  // namespace check

// Exercise 4: the online softmax. The page is 04_online_softmax.md.
#include "course.h"

// `into`, which has seen some scores, also sees those of `part`: afterwards it is what it would be, had it seen
// all of them. Each of the two may have seen none.
void merge(Online& into, const Online& part) {
  // BEGIN SOLUTION
  const double m = std::max(into.m, part.m);
  if (m == -kInfinity) return;
  //! nothing-seen:
  const double a = std::exp(into.m - m), b = std::exp(part.m - m);
  //! part-not-rescaled: const double a = std::exp(into.m - m), b = 1;
  //! inverted: const double a = std::exp(m - into.m), b = std::exp(m - part.m);
  into.l = a * into.l + b * part.l;
  //! l-not-rescaled: into.l = into.l + part.l;
  for (int c = 0; c < into.o.size; ++c) into.o(c) = a * into.o(c) + b * part.o(c);
  //! o-not-rescaled: for (int c = 0; c < into.o.size; ++c) into.o(c) = into.o(c) + b * part.o(c);
  into.m = m;
  //! old-maximum:
  // END SOLUTION
}

// The end: `out` becomes the output of the row, and lse its log of the sum of exponentials. If no score was seen,
// these are 0 and -infinity.
void finish(Vector out, double& lse, const Online& row) {
  // BEGIN SOLUTION
  lse = row.m + std::log(row.l);
  //! lse-without-maximum: lse = std::log(row.l);
  for (int c = 0; c < out.size; ++c) out(c) = row.l > 0 ? row.o(c) / row.l : 0;
  //! not-divided: for (int c = 0; c < out.size; ++c) out(c) = row.o(c);
  //! blind-row: for (int c = 0; c < out.size; ++c) out(c) = row.o(c) / row.l;
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  void (*merge)(Online& into, const Online& part);
  void (*finish)(Vector out, double& lse, const Online& row);
};

const std::vector<Mistake> kMistakes = {
    {"nothing-seen",
     "two parts without scores are not looked for: exp(-infinity - (-infinity)) is not a number"},
    {"part-not-rescaled", "the sums of `part` are not multiplied by exp(part.m - m)"},
    {"inverted", "the factors are exp(m - old m); they are exp(old m - m), at most 1"},
    {"l-not-rescaled", "l is not multiplied by exp(old m - m) before it is added to"},
    {"o-not-rescaled", "o of `into` is not multiplied by exp(old m - m) before it is added to"},
    {"old-maximum", "into.m is still the old maximum after the merge"},
    {"lse-without-maximum", "lse is log(l) alone; it is m + log(l)"},
    {"not-divided", "out is o; it is o / l"},
    {"blind-row", "a row that saw no score is divided by l = 0"},
};

// tq parts of a row, one after the other; c.masked counts parts, from the first on, that saw nothing.
const std::vector<Case> kCases = {
    {.title = "2 parts, the second with the larger score", .tq = 2, .d = 1, .seed = 1},
    {.title = "3 parts, D 59", .tq = 3, .d = 59, .seed = 3},
    {.title = "8 parts, D 5", .tq = 8, .d = 5, .seed = 4},
    {.title = "4 parts, scores around 1000", .tq = 4, .d = 3, .seed = 5, .shift = 1000},
    {.title = "1 part that saw nothing", .tq = 1, .d = 3, .seed = 6, .masked = 1},
    {.title = "3 parts, of which 2 saw nothing", .tq = 3, .d = 3, .seed = 7, .masked = 2}};

Tensors inputs(const Case& c) {
  Draw draw(c.seed);
  Tensors in = {draw.tensor("m", c.tq), draw.tensor("l", c.tq), draw.tensor("o", c.tq, c.d)};
  for (int i = 0; i < c.tq; ++i) {
    in[0].data[i] += c.shift + (c.seed == 1 ? 2 * i : 0);
    in[1].data[i] = 1 + std::abs(in[1].data[i]);
    if (i >= c.masked) continue;
    in[0].data[i] = -kInfinity;
    in[1].data[i] = 0;
    fill(in[2].matrix().row(i), 0);
  }
  return in;
}

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  Tensors out = {Tensor("m, l after the merges", 2), Tensor("o after the merges", c.d), Tensor("lse", 1),
                 Tensor("out", c.d)};
  const auto merged = [&](const Functions& by, Tensor& o) {
    Online row = {-kInfinity, 0, o.vector()};
    for (int i = 0; i < c.tq; ++i) {
      Tensor part("part.o", c.d);
      add(part.vector(), 1, in[2].matrix().row(i));
      by.merge(row, {in[0].data[i], in[1].data[i], part.vector()});
    }
    return row;
  };
  const Online mine = merged(f, out[1]);
  out[0].data = {mine.m, mine.l};
  Tensor o("o", c.d);
  f.finish(out[3].vector(), out[2].data[0], merged({&reference::merge, &reference::finish}, o));
  return out;
}

}  // namespace check

#include "course.h"

#include "course_errors.h"

namespace course {

void todo(const char* function) { throw NotWritten{std::string(function) + " is not written yet"}; }

void outside(const char* name, const char* axis, int i, int size, const Line& line) {
  throw Misuse{"line " + std::to_string(line.line()) + ": " + name + " has " + std::to_string(size) + " " +
               axis + ", so there is none with index " + std::to_string(i)};
}

namespace {

void check_sizes(const char* function, ConstVector x, ConstVector y, const Line& line) {
  if (!kChecked || x.size == y.size) return;
  throw Misuse{"line " + std::to_string(line.line()) + ": " + function + " of vectors of different sizes, " +
               std::to_string(x.size) + " and " + std::to_string(y.size)};
}

}  // namespace

double dot(ConstVector x, ConstVector y, const Line& line) {
  check_sizes("dot", x, y, line);
  double sum = 0;
  for (int c = 0; c < x.size; ++c) sum += x.data[c] * y.data[c];
  return sum;
}

void add(Vector y, double w, ConstVector x, const Line& line) {
  check_sizes("add", x, y, line);
  for (int c = 0; c < y.size; ++c) y.data[c] += w * x.data[c];
}

void fill(Vector x, double value) { std::fill_n(x.data, x.size, value); }

void fill(Matrix m, double value) {
  for (int i = 0; i < m.rows; ++i) fill(m.row(i), value);
}

}  // namespace course

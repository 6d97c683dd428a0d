#pragma once

// What an exercise may use: views of numbers that belong to somebody else, and a few functions on them.
// Plain C++; everything is double. Element (i, j) of a matrix m is m(i, j), element i of a vector x is x(i), and an
// index that is out of range stops the check with the line that used it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <source_location>
#include <vector>

namespace course {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// What the body of an unsolved exercise does: it ends the check with "... is not written yet".
[[noreturn]] void todo(const char* function);

// --- views ------------------------------------------------------------------------------------------------

using Line = std::source_location;

#ifdef NDEBUG
constexpr bool kChecked = false;  // when a model trains with the learner's code
#else
constexpr bool kChecked = true;
#endif

/// Ends the check: index i is not in [0, size).
[[noreturn]] void outside(const char* name, const char* axis, int i, int size, const Line& line);

inline void check_index(const char* name, const char* axis, int i, int size, const Line& line) {
  if (kChecked && (i < 0 || i >= size)) outside(name, axis, i, size, line);
}

/// A vector x: elements x(0) ... x(size - 1).
template <class T>
struct VectorOf {
  T* data;
  int size;
  const char* name = "the vector";

  VectorOf(T* data_, int size_, const char* name_ = "the vector") : data(data_), size(size_), name(name_) {}
  VectorOf(std::vector<double>& v) : data(v.data()), size(static_cast<int>(v.size())) {}
  T& operator()(int i, const Line& line = Line::current()) const {
    check_index(name, "elements", i, size, line);
    return data[i];
  }
  operator VectorOf<const T>() const { return {data, size, name}; }
};

/// A matrix m: elements m(i, j), rows m.row(i).
template <class T>
struct MatrixOf {
  T* data;
  int rows, cols;
  int stride;  // from one row to the next
  const char* name = "the matrix";
  std::int64_t* reads = nullptr;  // how many elements were looked at, if somebody counts

  MatrixOf(T* data_, int rows_, int cols_, const char* name_ = "the matrix")
      : MatrixOf(data_, rows_, cols_, cols_, name_) {}
  MatrixOf(T* data_, int rows_, int cols_, int stride_, const char* name_, std::int64_t* reads_ = nullptr)
      : data(data_), rows(rows_), cols(cols_), stride(stride_), name(name_), reads(reads_) {}
  T& operator()(int i, int j, const Line& line = Line::current()) const {
    check_index(name, "rows", i, rows, line);
    check_index(name, "columns", j, cols, line);
    count(1);
    return data[static_cast<std::ptrdiff_t>(i) * stride + j];
  }
  VectorOf<T> row(int i, const Line& line = Line::current()) const {
    check_index(name, "rows", i, rows, line);
    count(cols);
    return {data + static_cast<std::ptrdiff_t>(i) * stride, cols, name};
  }
  operator MatrixOf<const T>() const { return {data, rows, cols, stride, name, reads}; }

 private:
  void count(int n) const {
    if (kChecked && reads != nullptr) *reads += n;
  }
};

/// All heads of a sequence, (time, heads, dim): x.head(h) is a (time, dim) matrix, a view that copies nothing.
template <class T>
struct HeadsOf {
  T* data;
  int time, heads, dim;
  const char* name = "the heads";

  MatrixOf<T> head(int h, const Line& line = Line::current()) const {
    check_index(name, "heads", h, heads, line);
    return {data + static_cast<std::ptrdiff_t>(h) * dim, time, dim, heads * dim, name};
  }
  operator HeadsOf<const T>() const { return {data, time, heads, dim, name}; }
};

using Vector = VectorOf<double>;  ///< may be written
using ConstVector = VectorOf<const double>;
using Matrix = MatrixOf<double>;
using ConstMatrix = MatrixOf<const double>;
using Heads = HeadsOf<double>;
using ConstHeads = HeadsOf<const double>;

/// Sum of x(c) y(c).
double dot(ConstVector x, ConstVector y, const Line& line = Line::current());
/// y += w x
void add(Vector y, double w, ConstVector x, const Line& line = Line::current());
/// Every element becomes `value`.
void fill(Vector x, double value);
void fill(Matrix m, double value);

// --- exercise 4 -------------------------------------------------------------------------------------------

/// The softmax of a row, as far as its scores have been seen: m = max s, l = sum exp(s - m),
/// o = sum exp(s - m) v. Before the first score m = -infinity, l = 0 and o = 0.
struct Online {
  double m, l;
  Vector o;
};

// --- exercises 6 and 9: attention of one head, to call ----------------------------------------------------

/// out (Tq, D) and lse (Tq) from q (Tq, D), k and v (Tk, D).
void head_forward(Matrix out, Vector lse, ConstMatrix q, ConstMatrix k, ConstMatrix v, bool causal);
/// Overwrites dq, dk and dv.
void head_backward(Matrix dq, Matrix dk, Matrix dv, ConstMatrix dout, ConstMatrix q, ConstMatrix k,
                   ConstMatrix v, ConstMatrix out, ConstVector lse, bool causal);

// --- exercise 8 -------------------------------------------------------------------------------------------

using Values = std::vector<double>;

/// What a function keeps between forward and backward. Nobody looks inside; it is large.
struct Saved {
  std::shared_ptr<void> state = nullptr;
};

/// A part of a network that can be run and differentiated.
class Function {
 public:
  virtual ~Function() = default;
  /// y = f(x). The key decides what dropout drops: the same key, the same mask. If `saved` is not null, what
  /// backward needs is put there; if it is null, nothing is kept.
  virtual Values forward(const Values& x, std::uint64_t key, Saved* saved) = 0;
  /// dx from dy.
  virtual Values backward(const Values& dy, const Saved& saved) = 0;
};

/// Gives a fresh key at every call.
class Keys {
 public:
  virtual ~Keys() = default;
  virtual std::uint64_t next() = 0;
};

/// What a checkpoint keeps: fill in only what its backward cannot do without.
struct Kept {
  Values x = {}, y = {};
  std::uint64_t key = 0;
  Saved saved = {};
};

// --- exercise 9 -------------------------------------------------------------------------------------------

/// A matrix of the computation, and the gradient of the loss with respect to it, which starts at 0.
struct Value {
  int rows, cols;
  std::vector<double> values, grads;

  Value(int rows_, int cols_)
      : rows(rows_), cols(cols_), values(static_cast<std::size_t>(rows_) * cols_), grads(values.size()) {}
  Matrix value() { return {values.data(), rows, cols, "the value"}; }
  Matrix grad() { return {grads.data(), rows, cols, "the gradient"}; }
  int size() const { return static_cast<int>(values.size()); }
};
using Var = std::shared_ptr<Value>;

/// A (rows, cols) matrix of zeros.
inline Var make(int rows, int cols) { return std::make_shared<Value>(rows, cols); }

/// What has to run on the way back, in the order of the way forward.
struct Tape {
  std::vector<std::function<void()>> rules;
};

}  // namespace course

using namespace course;

#pragma once

// What checks an exercise: cases, the tensors that a function makes of them, and the verdict.

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "course.h"
#include "course_errors.h"

namespace check {

/// One problem that the learner's functions are run on. An exercise uses what it needs of it.
struct Case {
  std::string title = {};  ///< made of the sizes unless given
  int tq = 1, tk = 1, d = 1;
  int hq = 1, hkv = 1;
  bool causal = false;
  int tile_q = 0, tile_k = 0;
  std::uint64_t seed = 0;
  double shift = 0;
  int masked = 0;
  double dropout = 0;
  bool changes = false;

  std::string describe() const;
};

/// Named numbers: a vector, a matrix, or (rows = time, heads, cols = dim).
struct Tensor {
  std::string name;
  std::string gradient_of = {};  ///< the input that this is the gradient of, if it is one
  int heads = 1, rows = 1, cols = 1;
  std::vector<double> data = {};

  Tensor(std::string name_, int cols_, std::string gradient_of_ = {})
      : Tensor(name_, 1, cols_, gradient_of_) {}
  Tensor(std::string name_, int rows_, int cols_, std::string gradient_of_ = {});
  static Tensor heads_of(std::string name, int heads, int time, int dim, std::string gradient_of = {});

  course::Vector vector() { return {data.data(), static_cast<int>(data.size()), name.c_str()}; }
  course::Matrix matrix() { return {data.data(), rows, cols, name.c_str()}; }
  course::Heads heads_view() { return {data.data(), rows, heads, cols, name.c_str()}; }
  course::ConstVector vector() const { return const_cast<Tensor*>(this)->vector(); }
  course::ConstMatrix matrix() const { return const_cast<Tensor*>(this)->matrix(); }
  course::ConstHeads heads_view() const { return const_cast<Tensor*>(this)->heads_view(); }
  /// The matrix, with every read of an element counted.
  course::ConstMatrix counted(std::int64_t* reads) const {
    return {data.data(), rows, cols, cols, name.c_str(), reads};
  }
  /// "row 3, column 5" of element e.
  std::string place(std::size_t e) const;
};
using Tensors = std::vector<Tensor>;

/// Random numbers from a seed (splitmix64), the same everywhere.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  double uniform();  ///< in [0, 1)
  /// Elements in [-2, 2).
  Tensor tensor(std::string name, int cols) { return tensor(std::move(name), 1, cols); }
  Tensor tensor(std::string name, int rows, int cols);

 private:
  std::uint64_t state_;
};

/// A mistake that is known: its name, and what is wrong.
struct Mistake {
  std::string id, text;
};

// --- attention --------------------------------------------------------------------------------------------

std::vector<Case> attention_cases();
/// The same with tiles that do not divide the lengths, and one that is long.
std::vector<Case> tiled_cases();

/// q, k, v and dout.
Tensors attention_inputs(const Case& c);
/// dv, dq and dk, to be written.
Tensors attention_gradients(const Case& c);
/// Sum of out dout, by the reference.
double attention_loss(const Case& c, Tensors& in);

/// out and lse of the reference.
struct Forward {
  Tensor out, lse;

  Forward(const Case& c, const Tensors& in);
  /// Of a case with one head.
  Tensor probabilities(const Tensors& in) const;

 private:
  bool causal_;
};

/// How often elements of K were read beyond what the visible tiles need: 0 if it is done right.
Tensor reads_of_keys(const Case& c, std::int64_t reads);

/// How much the functions may allocate while it lives, if the case is large enough for that to mean something.
class MemoryLimit {
 public:
  /// Less than half of a matrix of scores.
  MemoryLimit(const Case& c, const char* reason);
  /// Less than so many numbers.
  MemoryLimit(std::size_t numbers, const char* reason);
  ~MemoryLimit();
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
  void check() const;  ///< throws course::Misuse if it was more

 private:
  std::size_t numbers_;
  const char* reason_;
};

// --- the verdict ------------------------------------------------------------------------------------------

/// Whose functions are run: those of the learner, the right ones, or mistake number 0, 1, ...
constexpr int kMine = -1, kRightOne = -2;

struct Exercise {
  std::string name;
  std::vector<Case> cases;
  std::vector<Mistake> mistakes;
  std::function<Tensors(const Case&)> inputs;
  std::function<Tensors(int who, const Case&, Tensors& in)> run;
  std::function<double(const Case&, Tensors& in)> loss =
      {};                                      ///< of which the gradients are, if there are any
  std::function<bool(int who)> epilogue = {};  ///< after all cases agree
  double tolerance = 1e-10;  ///< of each element, relative to the largest one of its tensor, at least 1
};

/// Exit codes of a check.
enum Verdict { kRight = 0, kWrong = 1, kUsage = 2, kNotWritten = 3 };

/// Runs every case and says what it found. `--as <id>` takes a mistake for the learner's functions, and
/// `--as reference` the right ones; `--list` names the mistakes.
int main_of(const Exercise& exercise, int argc, char** argv);

}  // namespace check

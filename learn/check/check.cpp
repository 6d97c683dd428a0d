#include "check.h"

#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>

namespace check {

namespace {

// What running somebody's functions on a case came to.
struct Attempt {
  Tensors tensors = {};
  Verdict verdict = kRight;  // as far as it is known before anything is compared
  std::string text = {};     // what stopped it
};

Attempt attempt(const Exercise& e, int who, const Case& c) {
  try {
    Tensors in = e.inputs(c);
    return {.tensors = e.run(who, c, in)};
  } catch (const course::NotWritten& missing) {
    return {.verdict = kNotWritten, .text = missing.text};
  } catch (const course::Misuse& misuse) {
    return {.verdict = kWrong, .text = misuse.text};
  } catch (const std::exception& error) {
    return {.verdict = kWrong, .text = std::string("an exception: ") + error.what()};
  }
}

double largest(const Tensor& t) {
  double most = 1;
  for (const double x : t.data) {
    if (std::isfinite(x)) most = std::max(most, std::abs(x));
  }
  return most;
}

bool equal(double a, double b, double allowed) {
  return a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= allowed;
}

// The first element in which b differs from a; sizes of tensors of the same name may differ, too.
std::optional<std::size_t> first_difference(const Tensor& a, const Tensor& b, double tolerance) {
  const double allowed = tolerance * largest(a);
  for (std::size_t i = 0; i < std::max(a.data.size(), b.data.size()); ++i) {
    if (i >= a.data.size() || i >= b.data.size() || !equal(a.data[i], b.data[i], allowed)) return i;
  }
  return {};
}

bool same(const Tensors& a, const Tensors& b, double tolerance) {
  if (a.size() != b.size()) return false;
  for (std::size_t t = 0; t < a.size(); ++t) {
    if (first_difference(a[t], b[t], tolerance)) return false;
  }
  return true;
}

// The central difference of the loss over element i of an input.
double finite_difference(const Exercise& e, const Case& c, const std::string& input, std::size_t i) {
  constexpr double kStep = 1e-5;
  double losses[2];
  for (const int side : {0, 1}) {
    Tensors in = e.inputs(c);
    for (Tensor& t : in) {
      if (t.name == input) t.data[i] += side == 0 ? -kStep : kStep;
    }
    losses[side] = e.loss(c, in);
  }
  return (losses[1] - losses[0]) / (2 * kStep);
}

std::string number(double x) {
  char text[64];
  std::snprintf(text, sizeof text, "%.10g", x);
  return text;
}

std::string element(const Tensor& t, std::size_t i) {
  return i < t.data.size() ? number(t.data[i]) : "nothing";
}

void print_difference(const Exercise& e, const Case& c, const Tensor& expected, const Tensor& got,
                      std::size_t i) {
  const std::string place = expected.place(i);
  std::printf("  %s is wrong%s%s: expected %s, got %s\n", expected.name.c_str(),
              place.empty() ? "" : ", first at ", place.c_str(), element(expected, i).c_str(),
              element(got, i).c_str());
  if (!expected.gradient_of.empty() && e.loss && i < expected.data.size()) {
    std::printf("  a finite difference of the loss gives %s\n",
                number(finite_difference(e, c, expected.gradient_of, i)).c_str());
  }
  std::size_t wrong = 0;
  for (std::size_t j = 0; j < expected.data.size() && got.data.size() == expected.data.size(); ++j) {
    wrong += !equal(expected.data[j], got.data[j], e.tolerance * largest(expected));
  }
  if (expected.data.size() > 1 && wrong > 0) {
    std::printf("  %zu of its %zu elements are wrong\n", wrong, expected.data.size());
  }
}

// Which mistakes give what the learner's functions give: in this case, and if there are several, in all others too.
std::vector<int> matching_mistakes(const Exercise& e, int mine, std::size_t wrong_case, const Tensors& got) {
  std::vector<int> candidates;
  for (int m = 0; m < static_cast<int>(e.mistakes.size()); ++m) {
    const Attempt wrong = attempt(e, m, e.cases[wrong_case]);
    if (wrong.verdict == kRight && same(wrong.tensors, got, e.tolerance)) candidates.push_back(m);
  }
  for (std::size_t i = 0; i < e.cases.size() && candidates.size() > 1; ++i) {
    const Attempt again = attempt(e, mine, e.cases[i]);
    std::erase_if(candidates, [&](int m) {
      const Attempt wrong = attempt(e, m, e.cases[i]);
      return wrong.verdict != again.verdict || !same(wrong.tensors, again.tensors, e.tolerance);
    });
  }
  return candidates;
}

void print_mistake(const Exercise& e, const std::vector<int>& candidates) {
  if (candidates.size() != 1) return;
  const Mistake& mistake = e.mistakes[static_cast<std::size_t>(candidates[0])];
  std::printf("  known mistake: %s [%s]\n", mistake.text.c_str(), mistake.id.c_str());
}

// A gradient that is right also agrees with finite differences: shown on a few elements of each.
double worst_finite_difference(const Exercise& e, const Case& c, const Tensors& expected) {
  double worst = 0;
  for (const Tensor& t : expected) {
    if (t.gradient_of.empty()) continue;
    for (std::size_t i = 0; i < t.data.size(); i += 1 + t.data.size() / 3) {
      const double difference = std::abs(finite_difference(e, c, t.gradient_of, i) - t.data[i]);
      worst = std::max(worst, difference / largest(t));
    }
  }
  return worst;
}

// Prints and returns the verdict on one case.
Verdict judge(const Exercise& e, int mine, std::size_t index) {
  const Case& c = e.cases[index];
  const Attempt expected = attempt(e, kRightOne, c), got = attempt(e, mine, c);
  if (got.verdict == kNotWritten) {
    std::printf("%s: %s\n", e.name.c_str(), got.text.c_str());
    return kNotWritten;
  }
  if (got.verdict != kRight) {
    std::printf("%s: wrong in the case: %s\n  %s\n", e.name.c_str(), c.describe().c_str(), got.text.c_str());
    return kWrong;
  }
  for (std::size_t t = 0; t < expected.tensors.size(); ++t) {
    const auto i = first_difference(expected.tensors[t], got.tensors[t], e.tolerance);
    if (!i) continue;
    std::printf("%s: wrong in the case: %s\n", e.name.c_str(), c.describe().c_str());
    print_difference(e, c, expected.tensors[t], got.tensors[t], *i);
    std::fflush(stdout);  // another case may crash
    print_mistake(e, matching_mistakes(e, mine, index, got.tensors));
    return kWrong;
  }
  return kRight;
}

int check_all(const Exercise& e, int mine) {
  for (std::size_t i = 0; i < e.cases.size(); ++i) {
    const Verdict verdict = judge(e, mine, i);
    if (verdict != kRight) return verdict;
  }
  std::printf("%s: right in all %zu cases\n", e.name.c_str(), e.cases.size());
  if (e.loss) {
    double worst = 0;
    for (const Case& c : e.cases) {
      worst = std::max(worst, worst_finite_difference(e, c, attempt(e, kRightOne, c).tensors));
    }
    std::printf("  finite differences agree with its gradients to %.0e\n", worst);
    if (!(worst < 1e-6)) return kWrong;
  }
  return e.epilogue && !e.epilogue(mine) ? kWrong : kRight;
}

int number_of(const Exercise& e, const char* id) {
  if (std::strcmp(id, "reference") == 0) return kRightOne;
  for (std::size_t m = 0; m < e.mistakes.size(); ++m) {
    if (e.mistakes[m].id == id) return static_cast<int>(m);
  }
  return kMine;
}

}  // namespace

int main_of(const Exercise& exercise, int argc, char** argv) {
  if (argc == 1) return check_all(exercise, kMine);
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const Mistake& mistake : exercise.mistakes) std::printf("%s\n", mistake.id.c_str());
    return kRight;
  }
  if (argc == 3 && std::strcmp(argv[1], "--as") == 0 && number_of(exercise, argv[2]) != kMine) {
    return check_all(exercise, number_of(exercise, argv[2]));
  }
  std::fprintf(stderr, "usage: %s [--list | --as MISTAKE]\n", argv[0]);
  return kUsage;
}

}  // namespace check

#include "tilegrad/autograd/print.h"

#include <algorithm>
#include <ostream>

namespace tilegrad {

namespace {

constexpr Index kEdge = 3;  // entries shown at either end of a long axis

class Printer {
 public:
  explicit Printer(const Tensor& tensor) : tensor_(tensor) {
    for_each_shown(0, 0, [this](Index i) { width_ = std::max(width_, number(i).size()); });
  }

  // The elements from `first` on, along `axis` and all after it.
  std::string text(int axis, Index first) const {
    if (axis == tensor_.rank()) return fmt::format("{:>{}}", number(first), width_);
    const std::string between =
        axis + 1 == tensor_.rank() ? ", " : ",\n" + std::string(static_cast<std::size_t>(axis) + 1, ' ');
    std::string out = "[";
    const Index n = tensor_.dim(axis);
    for (Index i = 0; i < n; ++i) {
      if (i > 0) out += between;
      if (long_axis(n) && i == kEdge) {
        out += "..." + between;
        i = n - kEdge;
      }
      out += text(axis + 1, first + i * step(axis));
    }
    return out + "]";
  }

 private:
  static bool long_axis(Index n) { return n > 2 * kEdge; }

  std::string number(Index i) const { return fmt::format("{:.4g}", tensor_.at(i)); }

  // How many elements lie between one entry of the axis and the next.
  Index step(int axis) const {
    Index size = 1;
    for (int i = axis + 1; i < tensor_.rank(); ++i) size *= tensor_.dim(i);
    return size;
  }

  template <class F>
  void for_each_shown(int axis, Index first, F&& f) const {
    if (axis == tensor_.rank()) {
      f(first);
      return;
    }
    const Index n = tensor_.dim(axis);
    for (Index i = 0; i < n; ++i) {
      if (long_axis(n) && i == kEdge) i = n - kEdge;
      for_each_shown(axis + 1, first + i * step(axis), f);
    }
  }

  const Tensor& tensor_;
  std::size_t width_ = 0;
};

}  // namespace

std::string to_string(const Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  return fmt::format("{} {}\n{}", tensor.shape(), tensor.dtype(), Printer(tensor).text(0, 0));
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) { return out << to_string(tensor); }
std::ostream& operator<<(std::ostream& out, const Var& x) { return out << x.value(); }

}  // namespace tilegrad

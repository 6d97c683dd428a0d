#include "tilegrad/autograd/var.h"

namespace tilegrad {

namespace {

std::shared_ptr<GradCell> leaf_cell(const Tensor& value) {
  check(value.defined() && is_float(value.dtype()),
        "leaf: gradients exist for f32, f64, bf16 and f16, not for {}", value.dtype());
  return std::make_shared<GradCell>(value.shape(), value.dtype());
}

}  // namespace

std::uint64_t thread_number() {
  static std::atomic<std::uint64_t> last = 0;
  thread_local const std::uint64_t number = ++last;
  return number;
}

Var Var::leaf(Tensor value) {
  auto cell = leaf_cell(value);
  return Var(std::move(value), std::move(cell));
}

const Tensor& Var::grad() const {
  check(tracked(), "grad: the value is a constant, it has no gradient");
  check(cell_->is_leaf(), "grad: gradients of intermediate values are consumed by backward");
  return cell_->grad;
}

Parameter::Parameter(Tensor initial) {
  auto cell = leaf_cell(initial);
  state_ = std::make_shared<State>(State{.value = std::move(initial), .cell = std::move(cell)});
}

Parameter Parameter::share() const {
  Parameter same;
  same.state_ = state_;
  return same;
}

}  // namespace tilegrad

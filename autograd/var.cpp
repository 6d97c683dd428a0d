#include "tilegrad/autograd/var.h"

namespace tilegrad {

namespace {

std::shared_ptr<GradCell> leaf_cell(const Tensor& value) {
  check(value.defined() && is_float(value.dtype()), "leaf: gradients exist for f32, f64 and bf16, not for {}",
        value.dtype());
  return std::make_shared<GradCell>(GradCell{.shape = value.shape(), .dtype = value.dtype(), .grad = {}});
}

}  // namespace

Var Var::leaf(Tensor value) {
  auto cell = leaf_cell(value);
  return Var(std::move(value), std::move(cell));
}

const Tensor& Var::grad() const {
  check(tracked(), "grad: the value is a constant, it has no gradient");
  check(cell_->tape == 0, "grad: gradients of intermediate values are consumed by backward");
  return cell_->grad;
}

Parameter::Parameter(Tensor initial) : value_(std::move(initial)), cell_(leaf_cell(value_)) {}

}  // namespace tilegrad

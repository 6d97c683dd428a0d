#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tilegrad/autograd/var.h"
#include "tilegrad/kernels/views.h"

namespace tilegrad {

using kernels::Grad;
using kernels::Write;

/// The gradients of one op's inputs, as its rule sees them during backward.
class InputGrads {
 public:
  /// Leaves that are about to be written for the first time in a walk are added to `leaves`.
  InputGrads(std::string_view op, std::span<const std::shared_ptr<GradCell>> cells,
             std::vector<std::shared_ptr<GradCell>>& leaves);

  /// Whether anybody needs the gradient of input i. Ask before computing something expensive.
  bool needs(Index i) const { return cells_[i] != nullptr; }

  /// Where to write the gradient of input i, every element of it: as a span, as a matrix whose columns are
  /// the last axis, or as (B, T, H, D). Empty if nobody needs it. Ask for it only once.
  template <class T>
  Grad<std::span<T>> grad(Index i) {
    return take<std::span<T>>(i, [](Tensor& grad) { return grad.mut<T>(); });
  }
  template <class T>
  Grad<kernels::Mat<T>> grad_mat(Index i) {
    return take<kernels::Mat<T>>(i, [](Tensor& grad) { return grad.mut_mat<T>(); });
  }
  template <class T>
  Grad<kernels::HeadsView<T>> grad_heads(Index i) {
    return take<kernels::HeadsView<T>>(i, [](Tensor& grad) { return grad.mut_heads<T>(); });
  }

  /// Hands over a finished gradient: shared, not copied, if it is the first contribution.
  void add(Index i, const Tensor& grad);

  /// Called when the rule is done: hands over to the cells what was written. If an error comes first, no cell
  /// is left with memory that was never written.
  void publish();

 private:
  struct Slot {
    Tensor grad;
    Write write;
  };
  Slot slot(Index i);
  /// The cell of input i, which no other thread writes to until the walk ends.
  GradCell& claim(Index i);
  template <class View, class F>
  Grad<View> take(Index i, F&& view) {
    if (!needs(i)) return {};
    Slot taken = slot(i);
    return {view(taken.grad), taken.write};
  }

  std::string_view op_;
  std::span<const std::shared_ptr<GradCell>> cells_;
  std::vector<std::shared_ptr<GradCell>>& leaves_;
  std::vector<GradCell*> taken_;                       // written in place
  std::vector<std::pair<GradCell*, Tensor>> written_;  // to publish
};

/// Gives a gradient memory that nothing else shares.
void make_unique(Tensor& grad);

}  // namespace tilegrad

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/elementwise.h"
#include "tilegrad/kernels/gemm.h"

namespace tilegrad {

namespace {

using kernels::Grad;
using kernels::Mat;
using kernels::Op;

template <class T>
T beta(Write write) {
  return write == Write::accumulate ? T{1} : T{0};
}

// Matrix i of (..., R, C) elements.
template <class T>
Mat<T> matrix(T* data, const Shape& shape, Index i) {
  const Index r = shape[-2], c = shape[-1];
  return {data + i * r * c, r, c};
}
template <class T>
Mat<const T> matrix(const Tensor& x, Index i) {
  return matrix(x.view<T>().data(), x.shape(), i);
}

Index matrices(const Shape& shape) {
  Index n = 1;
  for (int i = 0; i + 2 < shape.rank(); ++i) n *= shape[i];
  return n;
}

// y = a b:   da = dy bᵀ, db = aᵀ dy.
// y = a bᵀ:  da = dy b,  db = dyᵀ a.
struct MatmulRule {
  static constexpr std::string_view name = "matmul";
  Saved a, b;
  bool transpose_b;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      if (const auto da = dx.grad<T>(0)) backward_a(da, dy);
      if (const auto db = dx.grad<T>(1)) backward_b(db, dy);
    });
  }

  template <class T>
  void backward_a(Grad<std::span<T>> da, const Tensor& dy) const {
    const Tensor& bv = b.get(name, "b");
    const Shape shape = dy.shape().with(-1, bv.dim(transpose_b ? -1 : -2));
    for (Index i = 0; i < matrices(shape); ++i) {
      kernels::gemm<T>(matrix(da.to.data(), shape, i), T{1}, matrix<T>(dy, i), Op::none, matrix<T>(bv, i),
                       transpose_b ? Op::none : Op::transpose, beta<T>(da.write));
    }
  }

  template <class T>
  void backward_b(Grad<std::span<T>> db, const Tensor& dy) const {
    const Tensor& av = a.get(name, "a");
    for (Index i = 0; i < matrices(dy.shape()); ++i) {
      const Mat<const T> left = transpose_b ? matrix<T>(dy, i) : matrix<T>(av, i);
      const Mat<const T> right = transpose_b ? matrix<T>(av, i) : matrix<T>(dy, i);
      const Mat<T> to(db.to.data() + i * left.cols * right.cols, left.cols, right.cols);
      kernels::gemm<T>(to, T{1}, left, Op::transpose, right, Op::none, beta<T>(db.write));
    }
  }
};

// y = x Wᵀ + bias:  dx = dy W, dW = dyᵀ x, dbias = Σ_rows dy.
struct LinearRule {
  static constexpr std::string_view name = "linear";
  Saved x, weight;
  bool has_bias;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      if (const auto grad = dx.grad_mat<T>(0)) {
        kernels::gemm<T>(grad.to, T{1}, dy.mat<T>(), Op::none, weight.get(name, "weight").mat<T>(), Op::none,
                         beta<T>(grad.write));
      }
      if (const auto grad = dx.grad_mat<T>(1)) {
        kernels::gemm<T>(grad.to, T{1}, dy.mat<T>(), Op::transpose, x.get(name, "x").mat<T>(), Op::none,
                         beta<T>(grad.write));
      }
      if (!has_bias) return;
      if (const auto grad = dx.grad<T>(2)) kernels::add_bias_backward<T>(grad, dy.mat<T>());
    });
  }
};

Shape linear_shape(const OpScope& op, const Var& x, const Var& weight) {
  check_linear(op, x, weight);
  return x.shape().with(-1, weight.dim(0));
}

LinearRule linear_rule(const Var& x, const Var& weight, bool has_bias) {
  return {.x = weight.tracked() ? Saved(x) : Saved(),
          .weight = x.tracked() ? Saved(weight) : Saved(),
          .has_bias = has_bias};
}

}  // namespace

Var matmul(const Var& a, const Var& b, bool transpose_b) {
  const OpScope op(MatmulRule::name);
  check_same_dtype(op, a, b);
  op.check(a.rank() >= 2 && a.rank() == b.rank(), "ranks differ or are below 2: a is {}, b is {}", a.shape(),
           b.shape());
  for (int i = 0; i + 2 < a.rank(); ++i) {
    op.check(a.dim(i) == b.dim(i), "leading sizes differ: a is {}, b is {}", a.shape(), b.shape());
  }
  op.check(a.dim(-1) == b.dim(transpose_b ? -1 : -2), "inner sizes differ: a is {}, b is {}{}", a.shape(),
           b.shape(), transpose_b ? " transposed" : "");
  Tensor y = Tensor::empty(a.shape().with(-1, b.dim(transpose_b ? -2 : -1)), a.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    for (Index i = 0; i < matrices(y.shape()); ++i) {
      kernels::gemm<T>(matrix(y.mut<T>().data(), y.shape(), i), T{1}, matrix<T>(a.value(), i), Op::none,
                       matrix<T>(b.value(), i), transpose_b ? Op::transpose : Op::none, T{0});
    }
  });
  return record(y, {a, b}, [&] {
    return MatmulRule{.a = b.tracked() ? Saved(a) : Saved(),
                      .b = a.tracked() ? Saved(b) : Saved(),
                      .transpose_b = transpose_b};
  });
}

Var linear(const Var& x, const Var& weight) {
  const OpScope op(LinearRule::name, OpScope::MayWait());
  const Shape shape = linear_shape(op, x, weight);
  const auto compute = [](Tensor& y, std::span<const Tensor> xs) {
    with_float_type(LinearRule::name, y.dtype(), [&]<class T>() {
      kernels::gemm<T>(y.mut_mat<T>(), T{1}, xs[0].mat<T>(), Op::none, xs[1].mat<T>(), Op::transpose, T{0});
    });
  };
  const Tensor y = output_of(op.name(), shape, x.dtype(), {x.value(), weight.value()}, compute);
  return record(y, {x, weight}, [&] { return linear_rule(x, weight, false); });
}

Var linear(const Var& x, const Var& weight, const Var& bias) {
  const OpScope op(LinearRule::name, OpScope::MayWait());
  const Shape shape = linear_shape(op, x, weight);
  op.check(bias.shape() == Shape{weight.dim(0)}, "bias is {}, weight is {}", bias.shape(), weight.shape());
  check_same_dtype(op, x, bias);
  const auto compute = [](Tensor& y, std::span<const Tensor> xs) {
    with_float_type(LinearRule::name, y.dtype(), [&]<class T>() {
      kernels::gemm_bias<T>(y.mut_mat<T>(), xs[0].mat<T>(), Op::none, xs[1].mat<T>(), Op::transpose,
                            xs[2].view<T>());
    });
  };
  const Tensor y = output_of(op.name(), shape, x.dtype(), {x.value(), weight.value(), bias.value()}, compute);
  return record(y, {x, weight, bias}, [&] { return linear_rule(x, weight, true); });
}

}  // namespace tilegrad

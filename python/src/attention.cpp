#include "attention.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "arrays.h"
#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/attention/attention.h"

namespace tilegrad::python {

namespace nb = nanobind;

namespace {

using kernels::AttentionGrads;
using kernels::AttentionInputs;
using kernels::AttentionOptions;
using kernels::Compute;
using kernels::HeadsView;

AttentionOptions make_options(bool causal, std::string_view align, std::optional<Index> left,
                              std::optional<Index> right, std::optional<double> scale,
                              std::optional<double> softcap, double dropout, std::uint64_t seed) {
  check(align == "bottom_right" || align == "top_left",
        "attention: align is '{}', not 'bottom_right' or 'top_left'", align);
  return {.causal = causal,
          .align = align == "top_left" ? kernels::Align::top_left : kernels::Align::bottom_right,
          .window = {.left = left, .right = right},
          .scale = scale,
          .softcap = softcap,
          .dropout = dropout,
          .dropout_key = RandomKey{seed}};
}

// --- One call ---

// An array (B, T, H, D), also if it comes as (B, H, T, D), or none.
Array heads_array(nb::handle object, std::string_view name, bool heads_first, Access access = Access::read) {
  Array array(object, name, access);
  if (heads_first) array.swap_heads_and_time();
  return array;
}

// The operands of a call, checked: None or an array at each place.
class Call {
 public:
  Call(const nb::tuple& operands, const AttentionOptions& options, bool naive, bool heads_first) {
    check(operands.size() == kOperands, "attention: {} operands, not {}", operands.size(), int{kOperands});
    std::array<OperandInfo, kOperands> infos;
    for (int i = 0; i < kOperands; ++i) {
      arrays_[i] = heads_array(operands[i], kOperandNames[i], heads_first && i <= kV);
      infos[i] = arrays_[i].info();
    }
    const Dtype dtype = arrays_[kQ].dtype();
    check(is_float(dtype), "attention: q is {}, not f32, f64, bf16 or f16", dtype);
    check_attention(infos, options);
    if (naive) check_blas_sizes(infos);
    for (const Array& array : arrays_) array.check_last_axis();
  }

  Dtype dtype() const { return arrays_[kQ].dtype(); }
  Dtype accumulator() const { return compute_dtype(dtype()); }
  Shape out_shape() const { return shape(kQ).with(3, shape(kV)[3]); }
  Shape lse_shape() const { return {shape(kQ)[0], shape(kQ)[2], shape(kQ)[1]}; }
  Shape p_shape() const { return {shape(kQ)[0], shape(kQ)[2], shape(kQ)[1], shape(kK)[1]}; }
  const Shape& shape(AttentionOperand i) const { return arrays_[i].shape(); }

  template <class T>
  AttentionInputs<T> inputs() const {
    using Accum = Compute<T>;
    return {.q = arrays_[kQ].heads<const T>(),
            .k = arrays_[kK].heads<const T>(),
            .v = arrays_[kV].heads<const T>(),
            .bias = arrays_[kBias].scores<const Accum>(),
            .mask = arrays_[kMask].scores<const std::uint8_t>(),
            .alibi = arrays_[kAlibi].flat<const Accum>(),
            .sinks = arrays_[kSinks].flat<const Accum>(),
            .k_lengths = arrays_[kKLengths].flat<const std::int32_t>(),
            .cu_q = arrays_[kCuQ].flat<const std::int32_t>(),
            .cu_k = arrays_[kCuK].flat<const std::int32_t>()};
  }

 private:
  std::array<Array, kOperands> arrays_;
};

// What OpenBLAS, which naive attention calls, cannot read is copied: rows that overlap, run backwards or lie too far apart.
template <class T>
class BlasReadable {
 public:
  explicit BlasReadable(HeadsView<const T> x) : view_(x) {
    const bool fits = x.stride_t >= x.dim && x.stride_t <= std::numeric_limits<std::int32_t>::max();
    if (x.time <= 1 || fits) {
      view_.stride_t = std::max(x.stride_t, x.dim);
      return;
    }
    copy_ = Tensor::empty({x.batch, x.time, x.heads, x.dim}, dtype_of<T>);
    const HeadsView<T> to = copy_.mut_heads<T>();
    for (Index b = 0; b < x.batch; ++b) {
      for (Index h = 0; h < x.heads; ++h) {
        for (Index t = 0; t < x.time; ++t) std::copy_n(x.head(b, h).row(t), x.dim, to.head(b, h).row(t));
      }
    }
    view_ = to;
  }
  const HeadsView<const T>& view() const { return view_; }

 private:
  Tensor copy_;
  HeadsView<const T> view_;
};

template <class F>
void with_type(Dtype dtype, F&& f) {
  with_stored_type("attention", dtype, f);
}

bool is_naive(std::string_view kernel) {
  check(kernel == "flash" || kernel == "naive", "attention: the kernel is '{}', not 'flash' or 'naive'",
        kernel);
  return kernel == "naive";
}

// --- Forward ---

// Keeps p, (B, Hq, Tq, Tk), while it computes, and returns it.
template <class T>
Tensor naive_forward(HeadsView<T> out, std::span<Compute<T>> lse, const AttentionInputs<T>& in,
                     const Shape& p_shape, const AttentionOptions& options) {
  Tensor p = Tensor::empty(p_shape, dtype_of<Compute<T>>);
  kernels::naive_attention<T>(out, lse, p.mut<Compute<T>>(), in, options);
  return p;
}

void attention(std::string_view kernel, const AttentionOptions& options, nb::handle out_object,
               nb::handle lse_object, const nb::tuple& operands, bool heads_first) {
  const bool naive = is_naive(kernel);
  const Call call(operands, options, naive, heads_first);
  const Array out = heads_array(out_object, "out", heads_first, Access::write);
  const Array lse(lse_object, "lse", Access::write);
  out.check_is(call.out_shape(), call.dtype());
  lse.check_is(call.lse_shape(), call.accumulator());
  out.check_last_axis();
  const nb::gil_scoped_release unlocked;
  with_type(call.dtype(), [&]<class T>() {
    const AttentionInputs<T> in = call.inputs<T>();
    const HeadsView<T> to = out.heads<T>();
    const std::span<Compute<T>> lse_to = lse.flat<Compute<T>>();
    if (naive) {
      const BlasReadable<T> q(in.q), k(in.k), v(in.v);
      naive_forward<T>(to, lse_to, in.template with<T>(q.view(), k.view(), v.view()), call.p_shape(),
                       options);
    } else {
      kernels::flash_attention<T>(to, lse_to, in, options);
    }
  });
}

// --- Backward ---

enum Gradient { kDq, kDk, kDv, kDbias, kDsinks, kGradients };
constexpr std::array<std::string_view, kGradients> kGradientNames = {"dq", "dk", "dv", "dbias", "dsinks"};

// Where the gradients go: None, if one is not wanted, or an array.
class Gradients {
 public:
  Gradients(const nb::tuple& objects, const Call& call, bool heads_first) {
    check(objects.size() == kGradients, "attention: {} gradients, not {}", objects.size(), int{kGradients});
    for (int i = 0; i < kGradients; ++i) {
      arrays_[i] = heads_array(objects[i], kGradientNames[i], heads_first && i <= kDv, Access::write);
      const auto operand = static_cast<AttentionOperand>(i);  // they come in the same order
      arrays_[i].check_is(call.shape(operand), i < kDbias ? call.dtype() : call.accumulator());
      arrays_[i].check_last_axis();
    }
  }

  template <class T>
  AttentionGrads<T> views() const {
    using Accum = Compute<T>;
    return {.dq = {arrays_[kDq].heads<T>()},
            .dk = {arrays_[kDk].heads<T>()},
            .dv = {arrays_[kDv].heads<T>()},
            .dbias = {arrays_[kDbias].scores<Accum>()},
            .dsinks = {arrays_[kDsinks].flat<Accum>()}};
  }

 private:
  std::array<Array, kGradients> arrays_;
};

template <class T>
void naive_backward(const AttentionGrads<T>& grads, HeadsView<const T> dout, std::span<const Compute<T>> dlse,
                    const AttentionInputs<T>& in, const Call& call, const AttentionOptions& options) {
  const BlasReadable<T> q(in.q), k(in.k), v(in.v), dout_readable(dout);
  const AttentionInputs<T> readable = in.template with<T>(q.view(), k.view(), v.view());
  Tensor out = Tensor::empty(call.out_shape(), call.dtype());
  Tensor lse = Tensor::empty(call.lse_shape(), call.accumulator());
  const Tensor p =
      naive_forward<T>(out.mut_heads<T>(), lse.mut<Compute<T>>(), readable, call.p_shape(), options);
  kernels::naive_attention_backward<T>(grads, dout_readable.view(), readable, p.view<Compute<T>>(), options,
                                       std::as_const(lse).view<Compute<T>>(), dlse);
}

void attention_backward(std::string_view kernel, const AttentionOptions& options, const nb::tuple& gradients,
                        nb::handle dout_object, nb::handle dlse_object, nb::handle out_object,
                        nb::handle lse_object, const nb::tuple& operands, bool heads_first) {
  const bool naive = is_naive(kernel);
  const Call call(operands, options, naive, heads_first);
  const Gradients grads(gradients, call, heads_first);
  const Array dout = heads_array(dout_object, "dout", heads_first);
  const Array out = heads_array(out_object, "out", heads_first);
  const Array dlse(dlse_object, "dlse"), lse(lse_object, "lse");
  for (const Array* x : {&dout, &out}) {
    check(x->given(), "attention: the gradients need dout, out and lse");
    x->check_is(call.out_shape(), call.dtype());
    x->check_last_axis();
  }
  check(lse.given(), "attention: the gradients need dout, out and lse");
  for (const Array* x : {&dlse, &lse}) x->check_is(call.lse_shape(), call.accumulator());
  const nb::gil_scoped_release unlocked;
  with_type(call.dtype(), [&]<class T>() {
    const AttentionGrads<T> to = grads.views<T>();
    const AttentionInputs<T> in = call.inputs<T>();
    const auto dout_view = dout.heads<const T>();
    const auto dlse_view = dlse.flat<const Compute<T>>();
    if (naive) {
      naive_backward<T>(to, dout_view, dlse_view, in, call, options);
    } else {
      kernels::flash_attention_backward<T>(to, dout_view, in, out.heads<const T>(),
                                           lse.flat<const Compute<T>>(), options, dlse_view);
    }
  });
}

}  // namespace

void add_attention(nb::module_& module) {
  nb::class_<AttentionOptions>(module, "AttentionOptions")
      .def(nb::new_(&make_options), nb::arg("causal"), nb::arg("align"), nb::arg("left").none(),
           nb::arg("right").none(), nb::arg("scale").none(), nb::arg("softcap").none(), nb::arg("dropout"),
           nb::arg("seed"));
  module.def("attention", &attention, nb::arg("kernel"), nb::arg("options"), nb::arg("out"), nb::arg("lse"),
             nb::arg("operands"), nb::arg("heads_first") = false);
  module.def("attention_backward", &attention_backward, nb::arg("kernel"), nb::arg("options"),
             nb::arg("gradients"), nb::arg("dout"), nb::arg("dlse").none(), nb::arg("out"), nb::arg("lse"),
             nb::arg("operands"), nb::arg("heads_first") = false);
}

}  // namespace tilegrad::python

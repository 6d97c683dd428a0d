#include "tilegrad/kernels/embedding.h"

#include <algorithm>
#include <vector>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y_n = table[ids_n]:  dtable[i] = Σ dy_n over the n with ids_n = i.
struct EmbeddingRule {
  static constexpr std::string_view name = "embedding";
  Saved ids;

  void backward(const Tensor& dy, InputGrads& dx) {
    const InputGrads::Slot slot = dx.slot(0);
    const auto id = ids.get(name, "ids").view<std::int32_t>();
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::embedding_backward<T>(slot.grad->mut_mat<T>(), slot.write, dy.mat<T>(), id);
    });
  }
};

// The shape of `outer` with one more axis.
Shape append(const Shape& outer, Index last) {
  std::vector<Index> dims(outer.begin(), outer.end());
  dims.push_back(last);
  return Shape(std::span<const Index>(dims));
}

}  // namespace

Var embedding(const Var& table, const Tensor& ids) {
  const OpScope scope(EmbeddingRule::name);
  check(table.rank() == 2, "embedding: table is {}, not (vocabulary, width)", table.shape());
  const auto id = ids.view<std::int32_t>();
  const auto bad =
      std::find_if(id.begin(), id.end(), [&](std::int32_t i) { return i < 0 || i >= table.dim(0); });
  check(bad == id.end(), "embedding: id {} is not in [0, {})", bad == id.end() ? 0 : *bad, table.dim(0));
  Tensor y = Tensor::empty(append(ids.shape(), table.dim(1)), table.dtype());
  with_float_type("embedding", y.dtype(),
                  [&]<class T>() { kernels::embedding<T>(y.mut_mat<T>(), table.value().mat<T>(), id); });
  return record(y, {table}, [&] { return EmbeddingRule{.ids = Saved(ids)}; });
}

}  // namespace tilegrad

#include "tilegrad/nn/kv_pooling.h"

#include <set>

namespace tilegrad::nn {

namespace {

// Rows of a key or value projection are heads of D rows each; head h of `to` is the mean of heads
// [h g, (h + 1) g) of `from`, where g is the group size.
void pool_rows(Tensor& to, const Tensor& from, Index to_heads, Index from_heads) {
  const Index group_size = from_heads / to_heads, head = from.size() / from_heads;
  with_float_type("pool_kv_heads", to.dtype(), [&]<class T>() {
    const T* source = from.view<T>().data();
    T* target = to.mut<T>().data();
    for (Index h = 0; h < to_heads; ++h) {
      for (Index i = 0; i < head; ++i) {
        double sum = 0;
        for (Index g = 0; g < group_size; ++g)
          sum += static_cast<double>(source[(h * group_size + g) * head + i]);
        target[h * head + i] = static_cast<T>(sum / static_cast<double>(group_size));
      }
    }
  });
}

// The parameters whose rows are key or value heads.
std::set<const Parameter*> kv_parameters(const Transformer& model) {
  std::set<const Parameter*> found;
  for (const Block& block : model.blocks) {
    for (const Linear* projection : {&block.attention.key, &block.attention.value}) {
      found.insert({&projection->weight, &projection->bias});
    }
  }
  return found;
}

}  // namespace

void pool_kv_heads(Transformer& to, Transformer& from) {
  const AttentionConfig &few = to.config.attention, &many = from.config.attention;
  check(many.kv_heads % few.kv_heads == 0, "pool_kv_heads: kv_heads {} does not divide kv_heads {}",
        few.kv_heads, many.kv_heads);
  check(many.heads == few.heads, "pool_kv_heads: the models have {} and {} heads", few.heads, many.heads);
  const auto targets = parameters(to), sources = parameters(from);
  check(targets.size() == sources.size(), "pool_kv_heads: the models have {} and {} parameters",
        targets.size(), sources.size());
  const std::set<const Parameter*> pooled = kv_parameters(to);
  for (std::size_t i = 0; i < targets.size(); ++i) {
    Tensor& target = targets[i].parameter->value();
    const Tensor& source = sources[i].parameter->value();
    const bool is_kv = pooled.contains(targets[i].parameter);
    check(targets[i].name == sources[i].name && target.dtype() == source.dtype() &&
              (is_kv || target.shape() == source.shape()),
          "pool_kv_heads: {} {} does not match {} {}", targets[i].name, target.shape(), sources[i].name,
          source.shape());
    pool_rows(target, source, is_kv ? few.kv_heads : 1, is_kv ? many.kv_heads : 1);
  }
}

}  // namespace tilegrad::nn

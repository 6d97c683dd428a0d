#include "tilegrad/train/measure/random_tokens.h"

namespace tilegrad::train {

Tensor random_tokens(Index batch, Index time, RandomKey key, Index vocabulary) {
  RandomStream random(key);
  Tensor ids = Tensor::empty({batch, time}, Dtype::i32);
  for (std::int32_t& id : ids.mut<std::int32_t>()) {
    id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
  }
  return ids;
}

}  // namespace tilegrad::train

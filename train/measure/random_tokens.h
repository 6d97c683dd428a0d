#pragma once

#include "tilegrad/autograd/tensor.h"

namespace tilegrad::train {

/// The vocabulary of models whose answers do not matter: as many tokens as bytes.
inline constexpr Index kVocabulary = 256;

/// Random tokens below `vocabulary`, i32 (B, T).
Tensor random_tokens(Index batch, Index time, RandomKey key, Index vocabulary = kVocabulary);

}  // namespace tilegrad::train

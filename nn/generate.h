#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tilegrad/nn/transformer.h"

namespace tilegrad::nn {

struct SamplingOptions {
  double temperature = 0;  ///< 0: greedy, always the likeliest token
  Index top_k = 0;         ///< draw among the k likeliest; 0: among all
  RandomKey key = {};
};

/// Continues `prompt` (at least one token) by `count` tokens with a key/value cache, calling on_token for
/// each as it comes (return false to stop). Returns the new tokens.
///
/// Of a prompt longer than the context, the last `context` tokens are seen. When the context is full, the
/// cache is rebuilt from the newest context / 2 tokens, which then stand at positions 0, 1, ...; so each
/// token is chosen after between context / 2 and context tokens, and one pass in every context / 2 is a long
/// one.
std::vector<std::int32_t> generate(const Transformer& model, std::span<const std::int32_t> prompt,
                                   Index count, const SamplingOptions& options,
                                   const std::function<bool(std::int32_t)>& on_token = {});

}  // namespace tilegrad::nn

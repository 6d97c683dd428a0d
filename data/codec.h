#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tilegrad/base/index.h"

namespace tilegrad::data {

/// Tokens as a person types and reads them.
class Codec {
 public:
  virtual ~Codec() = default;

  virtual Index vocabulary() const = 0;  // V: tokens lie in [0, V)
  /// Throws, naming it, if part of the text is not a token.
  virtual std::vector<std::int32_t> encode(const std::string& text) const = 0;
  /// Throws if the token is not in [0, V).
  virtual std::string decode(std::int32_t token) const = 0;
  /// Where to start if there is no prompt: at least one token.
  virtual std::vector<std::int32_t> default_prompt() const = 0;
};

}  // namespace tilegrad::data

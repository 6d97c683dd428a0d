#include "tilegrad/data/text.h"

#include <algorithm>
#include <array>

#include "tilegrad/base/error.h"

namespace tilegrad::data {

ByteVocabulary::ByteVocabulary(const std::string& text) : token_of_byte_(256, -1) {
  std::array<bool, 256> seen{};
  for (const char c : text) seen[static_cast<unsigned char>(c)] = true;
  for (std::size_t byte = 0; byte < seen.size(); ++byte) {
    if (!seen[byte]) continue;
    token_of_byte_[byte] = static_cast<std::int32_t>(bytes_.size());
    bytes_.push_back(static_cast<char>(byte));
  }
}

std::vector<std::int32_t> ByteVocabulary::encode(const std::string& text) const {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    check(token_of_byte_[byte] >= 0, "text: the byte {:#04x} does not occur in the text that was trained on",
          byte);
    tokens.push_back(token_of_byte_[byte]);
  }
  return tokens;
}

std::string ByteVocabulary::decode(std::int32_t token) const {
  check(token >= 0 && token < std::ssize(bytes_), "text: token {} is not in [0, {})", token, bytes_.size());
  return std::string(1, bytes_[token]);
}

std::vector<std::int32_t> ByteVocabulary::default_prompt() const {
  return {std::max(0, token_of_byte_['\n'])};
}

Text::Text(const std::string& text, Index context, RandomKey key)
    : bytes_(text),
      tokens_(bytes_.encode(text)),
      split_(std::ssize(tokens_) * 9 / 10),
      context_(context),
      key_(key) {
  check(context >= 1, "text: context is {}, must be at least 1", context);
  check(!text.empty(), "text: is empty");
  check(split_ > context && validation_windows() >= 1,
        "text: {} bytes are too few for a context of {}: a tenth of them, for validation, must be longer "
        "than that",
        text.size(), context);
}

Batch Text::train(Index step, Index batch) const {
  RandomStream random(key_.fold(static_cast<std::uint64_t>(step)));
  Batch out;
  for (Index b = 0; b < batch; ++b) {
    append_window(out, static_cast<Index>(random.below(static_cast<std::uint64_t>(split_ - context_))));
  }
  return out;
}

Index Text::validation_batches(Index batch) const { return (validation_windows() + batch - 1) / batch; }

Batch Text::validation(Index index, Index batch) const {
  Batch out;
  const Index end = std::min(validation_windows(), (index + 1) * batch);
  for (Index window = index * batch; window < end; ++window) append_window(out, split_ + window * context_);
  return out;
}

void Text::append_window(Batch& batch, Index begin) const {
  const auto first = tokens_.begin() + begin;
  batch.tokens.insert(batch.tokens.end(), first, first + context_);
  batch.targets.insert(batch.targets.end(), first + 1, first + 1 + context_);
  batch.time = context_;
  ++batch.batch;
}

}  // namespace tilegrad::data

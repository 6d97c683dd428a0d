#pragma once

#include <string>

#include "tilegrad/base/random.h"
#include "tilegrad/data/batch.h"
#include "tilegrad/data/codec.h"

namespace tilegrad::data {

/// The distinct bytes of a text, in order; token i stands for the i-th of them.
class ByteVocabulary : public Codec {
 public:
  explicit ByteVocabulary(const std::string& text);

  const std::string& bytes() const { return bytes_; }
  Index vocabulary() const override { return std::ssize(bytes_); }
  std::vector<std::int32_t> encode(const std::string& text) const override;
  std::string decode(std::int32_t token) const override;
  /// A line break, or the first byte.
  std::vector<std::int32_t> default_prompt() const override;

 private:
  std::string bytes_;
  std::vector<std::int32_t> token_of_byte_;  // 256, −1: not in the vocabulary
};

/// Byte-level language modelling: predict every next byte. The first 90 % of the bytes are trained on, in
/// windows at random places; the rest, for validation, is cut into windows of T bytes that do not overlap.
class Text : public Dataset {
 public:
  /// Throws if the text is too short for one window in each part.
  Text(const std::string& text, Index context, RandomKey key);

  Index vocabulary() const override { return bytes_.vocabulary(); }
  Index context() const { return context_; }
  Batch train(Index step, Index batch) const override;
  Index validation_batches(Index batch) const override;
  Batch validation(Index index, Index batch) const override;

  const ByteVocabulary& byte_vocabulary() const { return bytes_; }

 private:
  void append_window(Batch& batch, Index begin) const;
  Index validation_windows() const { return (std::ssize(tokens_) - split_ - 1) / context_; }

  ByteVocabulary bytes_;
  std::vector<std::int32_t> tokens_;
  Index split_;  // the first token of the validation part
  Index context_;
  RandomKey key_;
};

}  // namespace tilegrad::data

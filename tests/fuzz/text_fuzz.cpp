// A text to learn, and what a person types. The first byte is the length of a context and of a batch.
#include "tests/fuzz/target.h"
#include "tilegrad/data/task.h"
#include "tilegrad/data/text.h"

namespace {

using namespace tilegrad;

void check_batch(const data::Batch& batch, Index vocabulary) {
  for (const auto& tokens : {batch.tokens, batch.targets}) {
    for (const std::int32_t token : tokens)
      fuzz::expect(token >= -1 && token < vocabulary, "a token beyond the vocabulary");
  }
}

}  // namespace

void tilegrad::fuzz::fuzz(std::string_view input) {
  if (input.empty()) return;
  const Index context = static_cast<unsigned char>(input[0]) % 64, batch = 1 + context % 5;
  const std::string text(input.substr(1));
  const data::Text dataset(text, context, RandomKey{1});
  check_batch(dataset.train(3, batch), dataset.vocabulary());
  for (Index i = 0; i < dataset.validation_batches(batch); ++i) {
    check_batch(dataset.validation(i, batch), dataset.vocabulary());
  }
  const data::ByteVocabulary& bytes = dataset.byte_vocabulary();
  std::string again;
  for (const std::int32_t token : bytes.encode(text)) again += bytes.decode(token);
  expect(again == text, "a text changes when it becomes tokens");
}

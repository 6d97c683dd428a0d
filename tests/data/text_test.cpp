#include "tilegrad/data/text.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "tests/temporary_folder.h"
#include "tilegrad/base/error.h"
#include "tilegrad/base/file.h"

namespace tilegrad::data {
namespace {

constexpr RandomKey kTextKey{99};

// Text in which every position can be told from its neighbourhood: the numbers 0, 1, 2, ...
std::string numbers(std::size_t bytes) {
  std::string text;
  for (int i = 0; text.size() < bytes; ++i) text += std::to_string(i) + " ";
  text.resize(bytes);
  return text;
}

std::string shown(const Text& text, const std::vector<std::int32_t>& tokens, Index begin, Index n) {
  std::string out;
  for (Index i = begin; i < begin + n; ++i) out += text.byte_vocabulary().decode(tokens[i]);
  return out;
}

TEST_CASE("text: the vocabulary is the distinct bytes in order, and survives as a string") {
  const ByteVocabulary vocabulary("hello\n\xff world");
  CHECK(vocabulary.bytes() == "\n dehlorw\xff");
  CHECK(vocabulary.encode("\nhe\xff") == std::vector<std::int32_t>{0, 4, 3, 9});
  const ByteVocabulary restored(vocabulary.bytes());
  CHECK(restored.encode("hello") == vocabulary.encode("hello"));
  for (std::int32_t t = 0; t < 10; ++t) CHECK(restored.encode(restored.decode(t)).at(0) == t);
}

TEST_CASE("text: a byte or a token outside the vocabulary is an error that names it") {
  const ByteVocabulary vocabulary("abc");
  CHECK_THROWS_WITH_AS(vocabulary.encode("abz"),
                       "text: the byte 0x7a does not occur in the text that was trained on", Error);
  CHECK_THROWS_WITH_AS(vocabulary.decode(3), "text: token 3 is not in [0, 3)", Error);
  CHECK_THROWS_WITH_AS(vocabulary.decode(-1), "text: token -1 is not in [0, 3)", Error);
}

TEST_CASE("text: each target is the byte that follows, and training stays within its 90 %") {
  const std::string content = numbers(5000);
  const Text text(content, 20, kTextKey);
  std::size_t first = content.size(), last = 0;
  for (Index step = 0; step < 300; ++step) {
    const Batch batch = text.train(step, 16);
    CHECK(batch.batch == 16);
    CHECK(batch.time == 20);
    for (Index b = 0; b < batch.batch; ++b) {
      const std::string window = shown(text, batch.tokens, b * 20, 20);
      const std::string next = shown(text, batch.targets, b * 20, 20);
      CHECK(window.substr(1) == next.substr(0, 19));
      const std::size_t begin = content.find(window + next.back());
      REQUIRE(begin != std::string::npos);
      first = std::min(first, begin);
      last = std::max(last, begin + 20);
    }
  }
  // Of 4800 draws, some reach the very ends: from byte 0 to the last target, byte 4499.
  CHECK(first < 10);
  CHECK(last <= 4499);
  CHECK(last > 4489);
}

TEST_CASE("text: validation windows cover the last tenth once, without the incomplete rest") {
  const std::string content = numbers(5000);
  const Text text(content, 30, kTextKey);
  std::string covered;
  Index windows = 0;
  for (Index i = 0; i < text.validation_batches(4); ++i) {
    const Batch batch = text.validation(i, 4);
    windows += batch.batch;
    covered += shown(text, batch.tokens, 0, batch.batch * 30);
    CHECK(shown(text, batch.targets, 0, batch.batch * 30) ==
          content.substr(4500 + covered.size() - static_cast<std::size_t>(batch.batch * 30) + 1,
                         static_cast<std::size_t>(batch.batch * 30)));
  }
  // 499 bytes have a byte after them; 16 windows of 30 fit.
  CHECK(windows == 16);
  CHECK(covered == content.substr(4500, 16 * 30));
}

TEST_CASE("text: a batch follows from the seed and the step alone") {
  const Text text(numbers(2000), 16, kTextKey);
  const Batch third = text.train(3, 8);
  text.train(4, 8);
  CHECK(text.train(3, 8).tokens == third.tokens);
  CHECK(text.train(4, 8).tokens != third.tokens);
  CHECK(Text(numbers(2000), 16, RandomKey{100}).train(3, 8).tokens != third.tokens);
}

TEST_CASE("text: the shortest text that will do does, one byte less is an error") {
  // After the first 90 of 101 bytes come 11: one window of 10 and the byte that follows it.
  const Text shortest(numbers(101), 10, kTextKey);
  CHECK(shortest.validation_batches(1) == 1);
  CHECK(shortest.validation(0, 1).batch == 1);
  CHECK_THROWS_WITH_AS(
      Text(numbers(100), 10, kTextKey),
      "text: 100 bytes are too few for a context of 10: a tenth of them, for validation, must "
      "be longer than that",
      Error);
  CHECK_THROWS_WITH_AS(Text("abc", 0, kTextKey), "text: context is 0, must be at least 1", Error);
  CHECK_THROWS_WITH_AS(Text("", 4, kTextKey), "text: is empty", Error);
}

}  // namespace
}  // namespace tilegrad::data

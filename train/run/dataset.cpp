#include "tilegrad/train/run/dataset.h"

#include "tilegrad/base/file.h"
#include "tilegrad/base/hash.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/data/task.h"
#include "tilegrad/data/text.h"

namespace tilegrad::train {

namespace {

// Windows that do not overlap, and that nothing is trained on.
class HeldOutText : public data::Dataset {
 public:
  HeldOutText(std::vector<std::int32_t> tokens, Index vocabulary, Index context)
      : tokens_(std::move(tokens)), vocabulary_(vocabulary), context_(context) {}

  Index vocabulary() const override { return vocabulary_; }
  data::Batch train(Index, Index) const override { fail("text: it is only held out"); }
  Index validation_batches(Index batch) const override { return (windows() + batch - 1) / batch; }
  data::Batch validation(Index index, Index batch) const override {
    const Index first = index * batch, rows = std::min(windows() - first, batch);
    const auto begin = tokens_.begin() + first * context_, end = begin + rows * context_;
    return {.batch = rows, .time = context_, .tokens = {begin, end}, .targets = {begin + 1, end + 1}};
  }

 private:
  Index windows() const { return (std::ssize(tokens_) - 1) / context_; }

  std::vector<std::int32_t> tokens_;
  Index vocabulary_, context_;
};

std::string read_text(const std::string& file) {
  constexpr Index kBytesPerByte = 8;  // the text, its tokens, and room to build them
  return read_file(file, static_cast<std::size_t>(memory::limit() / kBytesPerByte));
}

// Reads the text once, so that what is checked is what is learned, and a pipe is a text like any other.
std::unique_ptr<data::Dataset> make_text(RunConfig& config, RandomKey key) {
  const std::string bytes = read_text(config.text);
  const std::uint64_t hash = fnv1a(bytes);
  check(config.vocabulary.empty() || hash == config.text_hash,
        "{}: is not the text that this run was started with", config.text);
  try {
    auto text = std::make_unique<data::Text>(bytes, config.model.context, key);
    config.vocabulary = text->byte_vocabulary().bytes();
    config.text_hash = hash;
    return text;
  } catch (const Error& error) {
    fail("{}: {}", config.text, error.what());
  }
}

}  // namespace

std::unique_ptr<data::Dataset> make_held_out_text(const RunConfig& config, const std::string& file) {
  const data::ByteVocabulary vocabulary(config.vocabulary);
  const std::string bytes = read_text(file);
  const Index context = config.model.context;
  check(std::ssize(bytes) > context, "{}: {} bytes are too few for a context of {}", file, bytes.size(),
        context);
  try {
    return std::make_unique<HeldOutText>(vocabulary.encode(bytes), vocabulary.vocabulary(), context);
  } catch (const Error& error) {
    fail("{}: {}", file, error.what());
  }
}

std::unique_ptr<data::Dataset> make_dataset(RunConfig& config) {
  const RandomKey key = RandomKey{config.seed}.fold(kData);
  if (config.is_text()) return make_text(config, key);
  auto task = std::make_unique<data::Task>(config.task, key);
  check(config.model.context >= task->context(), "{}: context {} is shorter than its examples of {} tokens",
        config.data_name(), config.model.context, task->context());
  return task;
}

std::unique_ptr<data::Codec> make_codec(const RunConfig& config) {
  if (config.is_text()) return std::make_unique<data::ByteVocabulary>(config.vocabulary);
  return std::make_unique<data::Task>(config.task, RandomKey{config.seed}.fold(kData));
}

}  // namespace tilegrad::train

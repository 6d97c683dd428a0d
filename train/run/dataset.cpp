#include "tilegrad/train/run/dataset.h"

#include "tilegrad/base/file.h"
#include "tilegrad/base/hash.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/data/task.h"
#include "tilegrad/data/text.h"

namespace tilegrad::train {

namespace {

// Reads the text once, so that what is checked is what is learned, and a pipe is a text like any other.
std::unique_ptr<data::Dataset> make_text(RunConfig& config, RandomKey key) {
  constexpr Index kBytesPerByte = 8;  // the text, its tokens, and room to build them
  const std::string bytes = read_file(config.text, static_cast<std::size_t>(memory::limit() / kBytesPerByte));
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

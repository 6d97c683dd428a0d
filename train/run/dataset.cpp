#include "tilegrad/train/run/dataset.h"

#include <algorithm>

#include "tilegrad/base/file.h"
#include "tilegrad/base/hash.h"
#include "tilegrad/data/task.h"
#include "tilegrad/data/text.h"

namespace tilegrad::train {

namespace {

std::unique_ptr<data::Dataset> make_text(RunConfig& config, RandomKey key) {
  auto text = std::make_unique<data::Text>(data::Text::from_file(config.text, config.model.context, key));
  const std::uint64_t hash = fnv1a(read_file(config.text));
  check(config.vocabulary.empty() || hash == config.text_hash,
        "{}: is not the text that this run was started with", config.text);
  config.vocabulary = text->byte_vocabulary().bytes();
  config.text_hash = hash;
  return text;
}

class TextCodec : public Codec {
 public:
  explicit TextCodec(const std::string& bytes) : vocabulary_(bytes) {}
  Index vocabulary() const override { return std::ssize(vocabulary_.bytes()); }
  std::vector<std::int32_t> encode(const std::string& text) const override {
    return vocabulary_.encode(text);
  }
  std::string decode(std::int32_t token) const override { return vocabulary_.decode(token); }
  std::vector<std::int32_t> default_prompt() const override {
    const auto line_break = vocabulary_.bytes().find('\n');
    return {line_break == std::string::npos ? 0 : static_cast<std::int32_t>(line_break)};
  }

 private:
  data::ByteVocabulary vocabulary_;
};

class TaskCodec : public Codec {
 public:
  explicit TaskCodec(const data::Task& task) : task_(task) {}
  Index vocabulary() const override { return task_.vocabulary(); }
  std::vector<std::int32_t> encode(const std::string& text) const override { return task_.encode(text); }
  std::string decode(std::int32_t token) const override { return task_.decode(token); }
  std::vector<std::int32_t> default_prompt() const override {
    const data::Batch example = task_.validation(0, 1);
    const auto asked = std::find_if(example.targets.begin(), example.targets.end(),
                                    [](std::int32_t target) { return target != data::kIgnored; });
    return {example.tokens.begin(), example.tokens.begin() + (asked - example.targets.begin()) + 1};
  }

 private:
  data::Task task_;
};

}  // namespace

std::unique_ptr<data::Dataset> make_dataset(RunConfig& config) {
  const RandomKey key = RandomKey{config.seed}.fold(kData);
  if (config.is_text()) return make_text(config, key);
  auto task = std::make_unique<data::Task>(config.task, key);
  check(config.model.context >= task->context(), "{}: context {} is shorter than its examples of {} tokens",
        config.data_name(), config.model.context, task->context());
  return task;
}

std::unique_ptr<Codec> make_codec(const RunConfig& config) {
  if (config.is_text()) return std::make_unique<TextCodec>(config.vocabulary);
  return std::make_unique<TaskCodec>(data::Task(config.task, RandomKey{config.seed}.fold(kData)));
}

}  // namespace tilegrad::train

#include "tilegrad/data/task.h"

#include <algorithm>
#include <sstream>

#include "tilegrad/base/error.h"

namespace tilegrad::data {

namespace {

enum Stream : std::uint64_t { kTraining = 0, kValidation = 1 };

// Whether an example belongs to the held-out tenth. Depends on nothing but its tokens.
bool is_held_out(const Example& example) {
  RandomKey hash{0x68656c64};
  for (const std::int32_t t : example.tokens) hash = hash.fold(static_cast<std::uint64_t>(t));
  return hash.value % 10 == 0;
}

void append(Batch& batch, const Example& example) {
  batch.tokens.insert(batch.tokens.end(), example.tokens.begin(), example.tokens.end());
  batch.targets.insert(batch.targets.end(), example.targets.begin(), example.targets.end());
  batch.time = std::ssize(example.tokens);
  ++batch.batch;
}

std::string_view task_name(TaskKind kind) {
  return std::find_if(std::begin(kTasks), std::end(kTasks), [&](const TaskName& t) { return t.kind == kind; })
      ->name;
}

}  // namespace

TaskOptions TaskOptions::defaults(TaskKind kind) {
  switch (kind) {
    case TaskKind::copy:
      return {.kind = kind, .length = 12, .symbols = 10};
    case TaskKind::reverse:
      return {.kind = kind, .length = 12, .symbols = 10};
    case TaskKind::sort:
      return {.kind = kind, .length = 6, .symbols = 3};
    case TaskKind::add:
      return {.kind = kind, .length = 3, .symbols = 10};
    case TaskKind::recall:
      return {.kind = kind, .length = 32, .symbols = 32, .pairs = 4};
    case TaskKind::induction:
      return {.kind = kind, .length = 32, .symbols = 16};
  }
  return {};
}

void TaskOptions::validate() const {
  const std::string_view name = task_name(kind);
  check(length >= 1 && symbols >= 2, "{}: length {} and {} symbols, at least 1 and 2 are needed", name,
        length, symbols);
  const auto bounded = [&](std::string_view what, Index value) {
    check(value <= kMaxSize, "{}: {} is {}, must be at most {}", name, what, value, kMaxSize);
  };
  bounded("length", length);
  bounded("symbols", symbols);
  bounded("pairs", pairs);
  check(kind != TaskKind::add || symbols == 10, "add: numbers have 10 digits, not {}", symbols);
  check(kind != TaskKind::induction || length >= 4,
        "induction: length {} leaves no room, at least 4 are needed", length);
  if (kind != TaskKind::recall) return;
  check(pairs >= 1 && pairs <= symbols, "recall: {} pairs of {} different keys", pairs, symbols);
  check(length >= 3 * pairs, "recall: {} pairs and their questions take {} tokens, the length is {}", pairs,
        3 * pairs, length);
}

Index TaskOptions::context() const {
  validate();  // so that nothing below overflows
  switch (kind) {
    case TaskKind::copy:
    case TaskKind::reverse:
      return 2 * length;
    case TaskKind::sort:
      return 2 * length - 1;
    case TaskKind::add:
      return 3 * length + 2;
    case TaskKind::recall:
    case TaskKind::induction:
      return length;
  }
  return 0;
}

Task::Task(const TaskOptions& options, RandomKey key) : options_(options), key_(key) {
  options_.validate();
  names_ = symbol_names(options_);
}

Example Task::draw(RandomStream& random, bool held_out) const {
  constexpr int kMaxTries = 10000;
  for (int i = 0; i < kMaxTries; ++i) {
    Example example = make_example(options_, random);
    if (is_held_out(example) == held_out) return example;
  }
  fail("{}: too few different examples to hold some out: length {}, {} symbols", task_name(options_.kind),
       options_.length, options_.symbols);
}

Batch Task::train(Index step, Index batch) const {
  RandomStream random(key_.fold(kTraining).fold(static_cast<std::uint64_t>(step)));
  Batch out;
  for (Index b = 0; b < batch; ++b) append(out, draw(random, false));
  return out;
}

Index Task::validation_batches(Index batch) const { return (kValidationExamples + batch - 1) / batch; }

Batch Task::validation(Index index, Index batch) const {
  Batch out;
  const Index end = std::min(kValidationExamples, (index + 1) * batch);
  for (Index i = index * batch; i < end; ++i) {
    RandomStream random(key_.fold(kValidation).fold(static_cast<std::uint64_t>(i)));
    append(out, draw(random, true));
  }
  return out;
}

std::vector<std::int32_t> Task::encode(const std::string& text) const {
  std::istringstream in(text);
  std::vector<std::int32_t> tokens;
  for (std::string symbol; in >> symbol;) {
    const auto found = std::find(names_.begin(), names_.end(), symbol);
    check(found != names_.end(), "{}: `{}` is not one of its symbols: {}", task_name(options_.kind), symbol,
          fmt::join(names_, " "));
    tokens.push_back(static_cast<std::int32_t>(found - names_.begin()));
  }
  return tokens;
}

std::string Task::decode(std::int32_t token) const {
  check(token >= 0 && token < vocabulary(), "{}: token {} is not in [0, {})", task_name(options_.kind), token,
        vocabulary());
  return names_[token] + " ";
}

std::vector<std::int32_t> Task::default_prompt() const {
  const Batch example = validation(0, 1);
  const auto asked = std::find_if(example.targets.begin(), example.targets.end(),
                                  [](std::int32_t target) { return target != kIgnored; });
  return {example.tokens.begin(), example.tokens.begin() + (asked - example.targets.begin()) + 1};
}

}  // namespace tilegrad::data

#include "tilegrad/data/task.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tilegrad/base/error.h"

namespace tilegrad::data {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr RandomKey kKey{1234};

Tokens row(const std::vector<std::int32_t>& values, Index b, Index time) {
  return {values.begin() + b * time, values.begin() + (b + 1) * time};
}

// What the task asks for, worked out from the tokens as they are shown and not as they were made: the names
// of the targets, "." where nothing is asked.
using Shown = std::vector<std::string>;

Shown solve_rearrangement(TaskKind kind, const Shown& tokens, std::size_t n) {
  Shown answer(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n));
  if (kind == TaskKind::reverse) answer = Shown(answer.rbegin(), answer.rend());
  if (kind == TaskKind::sort) std::sort(answer.begin(), answer.end());
  Shown targets(tokens.size() - n, ".");
  targets.insert(targets.end(), answer.begin(), answer.end());
  return targets;
}

Shown solve_sum(const Shown& tokens) {
  std::string text;
  for (const std::string& t : tokens) text += t;
  const std::size_t plus = text.find('+'), equals = text.find('=');
  std::string sum =
      std::to_string(std::stoi(text.substr(0, plus)) + std::stoi(text.substr(plus + 1, equals - plus - 1)));
  sum.insert(0, plus + 1 - sum.size(), '0');
  std::reverse(sum.begin(), sum.end());
  Shown targets(equals, ".");
  for (const char digit : sum) targets.emplace_back(1, digit);
  return targets;
}

Shown solve_induction(const Shown& tokens) {
  Shown targets(tokens.size(), ".");
  targets.back() = *(std::find(tokens.begin(), tokens.end(), tokens.back()) + 1);
  return targets;
}

// The second time that a key is met, its value of the first time is asked for.
Shown solve_recall(const Shown& tokens) {
  Shown targets(tokens.size(), ".");
  std::map<std::string, std::string> value_of;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i][0] != 'k') continue;
    const auto known = value_of.find(tokens[i]);
    if (known == value_of.end()) {
      value_of[tokens[i]] = tokens[i + 1];
    } else {
      targets[i] = known->second;
    }
  }
  return targets;
}

Shown solve(const TaskOptions& options, const Shown& tokens) {
  switch (options.kind) {
    case TaskKind::copy:
    case TaskKind::reverse:
    case TaskKind::sort:
      return solve_rearrangement(options.kind, tokens, static_cast<std::size_t>(options.length));
    case TaskKind::add:
      return solve_sum(tokens);
    case TaskKind::induction:
      return solve_induction(tokens);
    case TaskKind::recall:
      return solve_recall(tokens);
  }
  return {};
}

void check_batch(const TaskOptions& options, const Batch& batch) {
  const Task task(options, kKey);
  const Shown names = symbol_names(options);
  REQUIRE(batch.time == task.context());
  REQUIRE(std::ssize(batch.tokens) == batch.batch * batch.time);
  REQUIRE(batch.targets.size() == batch.tokens.size());
  for (Index b = 0; b < batch.batch; ++b) {
    Shown tokens, targets;
    for (const std::int32_t t : row(batch.tokens, b, batch.time)) tokens.push_back(names.at(t));
    for (const std::int32_t t : row(batch.targets, b, batch.time)) {
      targets.push_back(t == kIgnored ? "." : names.at(t));
    }
    CHECK(targets == solve(options, tokens));
  }
}

std::vector<TaskOptions> every_task() {
  std::vector<TaskOptions> all;
  for (const TaskName& t : kTasks) all.push_back(TaskOptions::defaults(t.kind));
  all.push_back({.kind = TaskKind::recall, .length = 12, .symbols = 5, .pairs = 4, .filler = true});
  all.push_back({.kind = TaskKind::add, .length = 5, .symbols = 10});
  all.push_back({.kind = TaskKind::reverse, .length = 3, .symbols = 8});
  return all;
}

TEST_CASE("task: targets are what an independent solver finds, in training and in validation") {
  for (const TaskOptions& options : every_task()) {
    CAPTURE(static_cast<int>(options.kind));
    const Task task(options, kKey);
    check_batch(options, task.train(0, 50));
    check_batch(options, task.validation(0, 50));
  }
}

TEST_CASE("task: where a target is not the answer's last token, it is the next token read") {
  for (const TaskKind kind : {TaskKind::copy, TaskKind::reverse, TaskKind::sort, TaskKind::add}) {
    const Batch batch = Task(TaskOptions::defaults(kind), kKey).train(3, 10);
    for (Index b = 0; b < batch.batch; ++b) {
      const Tokens tokens = row(batch.tokens, b, batch.time), targets = row(batch.targets, b, batch.time);
      for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
        if (targets[i] != kIgnored) CHECK(targets[i] == tokens[i + 1]);
      }
    }
  }
}

TEST_CASE("task: the default sizes are the published ones") {
  const auto sizes = [](TaskKind kind) {
    const Task task(TaskOptions::defaults(kind), kKey);
    return std::pair(task.context(), task.vocabulary());
  };
  CHECK(sizes(TaskKind::sort) == std::pair<Index, Index>(11, 3));
  CHECK(sizes(TaskKind::induction) == std::pair<Index, Index>(32, 17));
  CHECK(sizes(TaskKind::recall) == std::pair<Index, Index>(32, 64));
  CHECK(sizes(TaskKind::add) == std::pair<Index, Index>(11, 12));
  CHECK(sizes(TaskKind::copy) == sizes(TaskKind::reverse));
}

TEST_CASE("task: induction shows its special token exactly twice and asks once") {
  const Batch batch = Task(TaskOptions::defaults(TaskKind::induction), kKey).train(0, 200);
  std::set<std::ptrdiff_t> places;
  for (Index b = 0; b < batch.batch; ++b) {
    const Tokens tokens = row(batch.tokens, b, batch.time), targets = row(batch.targets, b, batch.time);
    CHECK(std::count(tokens.begin(), tokens.end(), 16) == 2);
    CHECK(std::count(targets.begin(), targets.end(), kIgnored) == batch.time - 1);
    places.insert(std::find(tokens.begin(), tokens.end(), 16) - tokens.begin());
  }
  CHECK(*places.begin() == 0);
  CHECK(*places.rbegin() == 29);
}

TEST_CASE("task: recall asks each key once, after the pairs, and the filler replaces the random values") {
  for (const bool filler : {false, true}) {
    auto options = TaskOptions::defaults(TaskKind::recall);
    options.filler = filler;
    const Batch batch = Task(options, kKey).train(0, 50);
    for (Index b = 0; b < batch.batch; ++b) {
      const Tokens tokens = row(batch.tokens, b, batch.time), targets = row(batch.targets, b, batch.time);
      const std::set<std::int32_t> keys = {tokens[0], tokens[2], tokens[4], tokens[6]};
      CHECK(keys.size() == 4);
      std::multiset<std::int32_t> asked;
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (targets[i] != kIgnored)
          asked.insert(tokens[i]);
        else if (i >= 8)
          CHECK((filler ? tokens[i] == 64 : tokens[i] >= 32 && tokens[i] < 64));
      }
      CHECK(asked == std::multiset<std::int32_t>(keys.begin(), keys.end()));
    }
  }
}

TEST_CASE("task: a batch follows from the seed and the step alone") {
  for (const TaskOptions& options : every_task()) {
    const Task task(options, kKey);
    const Batch fifth = task.train(5, 8);
    for (Index step = 0; step < 5; ++step) task.train(step, 8);
    const Batch again = Task(options, kKey).train(5, 8);
    CHECK(fifth.tokens == again.tokens);
    CHECK(fifth.targets == again.targets);
    CHECK(fifth.tokens != task.train(6, 8).tokens);
    CHECK(fifth.tokens != Task(options, RandomKey{1235}).train(5, 8).tokens);
  }
}

TEST_CASE("task: the validation set is the same however it is cut into batches") {
  const Task task(TaskOptions::defaults(TaskKind::reverse), kKey);
  const auto all = [&](Index batch) {
    Tokens tokens;
    for (Index i = 0; i < task.validation_batches(batch); ++i) {
      const Tokens part = task.validation(i, batch).tokens;
      tokens.insert(tokens.end(), part.begin(), part.end());
    }
    return tokens;
  };
  CHECK(std::ssize(all(64)) == Task::kValidationExamples * task.context());
  CHECK(all(64) == all(100));
}

TEST_CASE("task: no example is both trained on and held out") {
  // 3^6 sort inputs: both streams meet all that is theirs.
  for (const auto& options : {TaskOptions::defaults(TaskKind::sort),
                              TaskOptions{.kind = TaskKind::copy, .length = 3, .symbols = 6}}) {
    const Task task(options, kKey);
    std::set<Tokens> trained, held_out;
    for (Index step = 0; step < 150; ++step) {
      const Batch batch = task.train(step, 64);
      for (Index b = 0; b < batch.batch; ++b) trained.insert(row(batch.tokens, b, batch.time));
    }
    for (Index i = 0; i < task.validation_batches(64); ++i) {
      const Batch batch = task.validation(i, 64);
      for (Index b = 0; b < batch.batch; ++b) held_out.insert(row(batch.tokens, b, batch.time));
    }
    for (const Tokens& example : held_out) CHECK(trained.count(example) == 0);
    CHECK(held_out.size() > trained.size() / 20);
    CHECK(held_out.size() < trained.size() / 5);
  }
}

TEST_CASE("task: symbols are read as they are shown") {
  for (const TaskOptions& options : every_task()) {
    const Task task(options, kKey);
    std::string text;
    const Tokens tokens = task.train(0, 1).tokens;
    for (const std::int32_t t : tokens) text += task.decode(t);
    CHECK(task.encode(text) == tokens);
  }
  const Task add(TaskOptions::defaults(TaskKind::add), kKey);
  CHECK(add.encode("1 2 3 + 4 5 6 =") == Tokens{1, 2, 3, 10, 4, 5, 6, 11});
  CHECK_THROWS_WITH_AS(add.encode("1 x"),
                       "add: `x` is not one of its symbols: 0 1 2 3 4 5 6 7 8 9 + =", Error);
  CHECK_THROWS_WITH_AS(add.decode(12), "add: token 12 is not in [0, 12)", Error);
}

TEST_CASE("task: sizes that make no sense are one line that says so") {
  const auto make = [](const TaskOptions& options) { return Task(options, kKey); };
  CHECK_THROWS_WITH_AS(make({.kind = TaskKind::copy, .length = 0, .symbols = 4}),
                       "copy: length 0 and 4 symbols, at least 1 and 2 are needed", Error);
  CHECK_THROWS_WITH_AS(make({.kind = TaskKind::add, .length = 3, .symbols = 8}),
                       "add: numbers have 10 digits, not 8", Error);
  CHECK_THROWS_WITH_AS(make({.kind = TaskKind::induction, .length = 3, .symbols = 8}),
                       "induction: length 3 leaves no room, at least 4 are needed", Error);
  CHECK_THROWS_WITH_AS(make({.kind = TaskKind::recall, .length = 32, .symbols = 4, .pairs = 5}),
                       "recall: 5 pairs of 4 different keys", Error);
  CHECK_THROWS_WITH_AS(make({.kind = TaskKind::recall, .length = 11, .symbols = 8, .pairs = 4}),
                       "recall: 4 pairs and their questions take 12 tokens, the length is 11", Error);
}

TEST_CASE("task: too few different examples to hold some out is an error, not an endless search") {
  const Task task({.kind = TaskKind::copy, .length = 1, .symbols = 2}, kKey);
  CHECK_THROWS_AS((task.train(0, 64), task.validation(0, 64)), Error);
}

}  // namespace
}  // namespace tilegrad::data

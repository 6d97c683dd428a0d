#include <algorithm>
#include <numeric>

#include "tilegrad/base/error.h"
#include "tilegrad/data/task.h"

// How each task makes an example and shows its symbols. The tokens are numbered from the symbols on; what a
// task needs besides (bar, plus and equals, special token, filler) follows them.
namespace tilegrad::data {

namespace {

std::int32_t token(Index i) { return static_cast<std::int32_t>(i); }

std::int32_t random_token(RandomStream& random, Index below) {
  return token(static_cast<Index>(random.below(static_cast<std::uint64_t>(below))));
}

std::vector<std::int32_t> random_tokens(RandomStream& random, Index n, Index below) {
  std::vector<std::int32_t> tokens;
  for (Index i = 0; i < n; ++i) tokens.push_back(random_token(random, below));
  return tokens;
}

// The first n of the numbers 0 … of − 1 in random order.
std::vector<Index> random_choice(RandomStream& random, Index n, Index of) {
  std::vector<Index> all(of);
  std::iota(all.begin(), all.end(), Index{0});
  for (Index i = 0; i < n; ++i) {
    const auto j = i + static_cast<Index>(random.below(static_cast<std::uint64_t>(of - i)));
    std::swap(all[i], all[j]);
  }
  all.resize(n);
  return all;
}

// A question and its answer, token by token: each token of the answer is asked for where the one before it is
// read.
Example question_and_answer(const std::vector<std::int32_t>& question,
                            const std::vector<std::int32_t>& answer) {
  Example example = {.tokens = question, .targets = {}};
  example.tokens.insert(example.tokens.end(), answer.begin(), answer.end() - 1);
  example.targets.assign(question.size() - 1, kIgnored);
  example.targets.insert(example.targets.end(), answer.begin(), answer.end());
  return example;
}

Example make_rearrangement(const TaskOptions& o, RandomStream& random) {
  auto question = random_tokens(random, o.length, o.symbols);
  auto answer = question;
  if (o.kind == TaskKind::sort) {
    std::sort(answer.begin(), answer.end());
    return question_and_answer(question, answer);
  }
  if (o.kind == TaskKind::reverse) std::reverse(answer.begin(), answer.end());
  question.push_back(token(o.symbols));  // the bar
  return question_and_answer(question, answer);
}

Example make_sum(const TaskOptions& o, RandomStream& random) {
  const auto a = random_tokens(random, o.length, 10), b = random_tokens(random, o.length, 10);
  const std::int32_t plus = 10, equals = 11;
  std::vector<std::int32_t> question = a;
  question.push_back(plus);
  question.insert(question.end(), b.begin(), b.end());
  question.push_back(equals);
  std::vector<std::int32_t> answer;  // last digit first
  std::int32_t carry = 0;
  for (auto i = static_cast<std::size_t>(o.length); i-- > 0;) {
    const std::int32_t digit = a[i] + b[i] + carry;
    answer.push_back(digit % 10);
    carry = digit / 10;
  }
  answer.push_back(carry);
  return question_and_answer(question, answer);
}

Example make_induction(const TaskOptions& o, RandomStream& random) {
  const std::int32_t special = token(o.symbols);
  auto tokens = random_tokens(random, o.length, o.symbols);
  const auto first =
      static_cast<std::size_t>(random_token(random, o.length - 2));  // room for the symbol after it
  tokens[first] = special;
  tokens.back() = special;
  return question_and_answer(tokens, {tokens[first + 1]});
}

Example make_recall(const TaskOptions& o, RandomStream& random) {
  // Keys are 0 … symbols − 1, values symbols … 2 symbols − 1, the filler 2 symbols.
  const auto keys = random_choice(random, o.pairs, o.symbols);
  const auto values = random_choice(random, o.pairs, o.symbols);
  const Index gaps = o.length - 2 * o.pairs;
  const auto places = random_choice(random, o.pairs, gaps);
  Example example;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    example.tokens.push_back(token(keys[i]));
    example.tokens.push_back(token(o.symbols + values[i]));
  }
  for (Index i = 0; i < gaps; ++i) {
    example.tokens.push_back(o.filler ? token(2 * o.symbols)
                                      : token(o.symbols) + random_token(random, o.symbols));
  }
  example.targets.assign(example.tokens.size(), kIgnored);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto at = static_cast<std::size_t>(2 * o.pairs + places[i]);
    example.tokens[at] = token(keys[i]);
    example.targets[at] = token(o.symbols + values[i]);
  }
  return example;
}

std::vector<std::string> numbered(std::string_view prefix, Index n) {
  std::vector<std::string> names;
  for (Index i = 0; i < n; ++i) names.push_back(fmt::format("{}{}", prefix, i));
  return names;
}

}  // namespace

Example make_example(const TaskOptions& options, RandomStream& random) {
  switch (options.kind) {
    case TaskKind::add:
      return make_sum(options, random);
    case TaskKind::induction:
      return make_induction(options, random);
    case TaskKind::recall:
      return make_recall(options, random);
    case TaskKind::copy:
    case TaskKind::reverse:
    case TaskKind::sort:
      break;
  }
  return make_rearrangement(options, random);
}

std::vector<std::string> symbol_names(const TaskOptions& options) {
  if (options.kind == TaskKind::recall) {
    auto names = numbered("k", options.symbols);
    const auto values = numbered("v", options.symbols);
    names.insert(names.end(), values.begin(), values.end());
    if (options.filler) names.push_back("_");
    return names;
  }
  auto names = numbered("", options.symbols);
  switch (options.kind) {
    case TaskKind::copy:
    case TaskKind::reverse:
      names.push_back("|");
      break;
    case TaskKind::add:
      names.insert(names.end(), {"+", "="});
      break;
    case TaskKind::induction:
      names.push_back("!");
      break;
    case TaskKind::sort:
    case TaskKind::recall:
      break;
  }
  return names;
}

}  // namespace tilegrad::data

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/base/random.h"
#include "tilegrad/data/batch.h"
#include "tilegrad/data/codec.h"

namespace tilegrad::data {

/// The toy tasks. Each example is one sequence; the model reads it and is asked for some of its tokens.
///   copy       x₁ … xₙ | x₁ … xₙ          repeat the symbols after the bar
///   reverse    x₁ … xₙ | xₙ … x₁          in reverse
///   sort       x₁ … xₙ y₁ … yₙ            in order (minGPT's setting has no bar)
///   add        a + b = c                  the sum of two numbers of n digits, last digit first
///   induction  … ! y … !                  what followed the special token's first occurrence?
///   recall     k₁ v₁ … kₙ vₙ … kᵢ … kⱼ …  each key comes again once; what is its value?
/// The sum is written from its last digit on, so that each digit needs only what stands before it. Recall is
/// known as multi-query associative recall.
enum class TaskKind { copy, reverse, sort, add, recall, induction };

/// All tasks, with their names.
struct TaskName {
  TaskKind kind;
  std::string_view name;
};
inline constexpr TaskName kTasks[] = {{TaskKind::copy, "copy"},     {TaskKind::reverse, "reverse"},
                                      {TaskKind::sort, "sort"},     {TaskKind::add, "add"},
                                      {TaskKind::recall, "recall"}, {TaskKind::induction, "induction"}};

struct TaskOptions {
  TaskKind kind = TaskKind::sort;
  Index length = 0;     ///< n for copy, reverse, sort and add; the sequence's length for induction and recall
  Index symbols = 0;    ///< different symbols; keys, and as many values, for recall
  Index pairs = 0;      ///< recall: key/value pairs at the start
  bool filler = false;  ///< recall: fill the gaps with one filler token instead of random values

  static constexpr Index kMaxSize = 1 << 20;  ///< of each of them

  /// The published or customary sizes of a task.
  static TaskOptions defaults(TaskKind kind);
  /// Throws if the sizes do not fit together.
  void validate() const;
  /// Tokens of one example. Throws as validate() does.
  Index context() const;
};

/// One example: T tokens, and what should follow each of them, kIgnored where nothing is asked.
struct Example {
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> targets;
};

/// Endless examples from a seed. A tenth of all possible examples is held out: whether one is follows from
/// its own tokens, so that training never meets it, however long it lasts.
class Task : public Dataset, public Codec {
 public:
  Task(const TaskOptions& options, RandomKey key);

  Index vocabulary() const override { return std::ssize(names_); }
  Index context() const { return options_.context(); }
  Batch train(Index step, Index batch) const override;
  Index validation_batches(Index batch) const override;
  Batch validation(Index index, Index batch) const override;
  /// Symbols as they are shown, separated by spaces: "3 1 2", "k4 v7", "1 2 3 + 4 5 6 =".
  std::vector<std::int32_t> encode(const std::string& text) const override;
  std::string decode(std::int32_t token) const override;
  /// The question of a held-out example.
  std::vector<std::int32_t> default_prompt() const override;

  /// Number of examples in the held-out set.
  static constexpr Index kValidationExamples = 512;

 private:
  Example draw(RandomStream& random, bool held_out) const;

  TaskOptions options_;
  RandomKey key_;
  std::vector<std::string> names_;
};

/// One example of a task, from a stream of random numbers.
Example make_example(const TaskOptions& options, RandomStream& random);

/// How tokens are shown: token i as the i-th name. Their number is the vocabulary.
std::vector<std::string> symbol_names(const TaskOptions& options);

}  // namespace tilegrad::data

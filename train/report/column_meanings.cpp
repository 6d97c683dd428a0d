#include "tilegrad/train/report/column_meanings.h"

#include <set>
#include <string>

namespace tilegrad::train {

namespace {

struct Meaning {
  std::string_view heading, meaning;
};

// One vocabulary for all labs and runs: the same heading always means the same.
constexpr Meaning kMeanings[] = {
    // Runs.
    {"run", "the name of the run's folder"},
    {"seeds", "runs that differ in nothing but their seed"},
    {"parameters", "numbers that training changes"},
    {"K/V per token", "bytes that decoding keeps of each token: its keys and values in all layers"},
    {"steps", "training steps done"},
    {"train loss", "mean over the steps since the evaluation before, in nats"},
    {"val loss", "mean over the held-out positions that are asked for, in nats"},
    {"bits per byte", "val loss / ln 2, for models of bytes"},
    {"lowest", "of the seeds"},
    {"highest", "of the seeds"},
    {"accuracy", "share of the held-out positions where the likeliest token is right"},
    {"ms per step", "median time of a training step: forward, backward and update"},
    {"tokens/s", "tokens per second, at the median time of a step"},
    {"loss differs by", "largest difference of a step's loss from that of the first run"},
    // Memory.
    {"peak tracked",
     "the most bytes that tensors and kernels had at once, counted by the program's own allocator"},
    {"peak RSS",
     "the most physical memory of the process, including program, libraries and what is kept for reuse; "
     "measured in a process of its own"},
    {"peak memory",
     "the most bytes that a pass took beyond its inputs, counted by the program's own allocator"},
    {"decoding peak", "peak tracked while tokens are generated, with the keys and values kept"},
    {"its RSS", "peak RSS of that"},
    {"predicted peak", "peak tracked as the plan predicts it, from sizes and times of single blocks"},
    {"off by, %", "how far the prediction is from peak tracked"},
    // Time.
    {"ms", "median time of a call"},
    {"spread, ms", "distance of the quartiles: half of all calls lie in a range of this width"},
    {"half of them in", "the quartiles: half of all calls lie between them"},
    {"extra time, %", "median time beyond that of recomputing nothing"},
    {"T", "tokens of a sequence"},
    {"kernel", "naive: the textbook formula, with a matrix of scores; flash: tile by tile, without one"},
    {"pass", "forward computes, backward gives the gradients"},
    // Machine.
    {"bytes moved",
     "by a model: what a pass must read and write from main memory if tiles stay in the cache of "
     "the second level"},
    {"moved by model",
     "what a pass must read and write from main memory if tiles stay in the cache of the second level"},
    {"flop per byte",
     "operations of the matrix products divided by bytes moved; if it is low, memory is the limit"},
    {"GFLOP/s", "10^9 operations of the matrix products per second, from their number and the median time"},
    {"of FMA peak",
     "GFLOP/s as a share of those of a loop of fused multiply-adds on as many threads, in the same run"},
    {"of peak",
     "GFLOP/s as a share of those of a loop of fused multiply-adds on as many threads, in the same run"},
    {"of memory peak", "bytes moved per second as a share of those of a plain read and write"},
    // Differences.
    {"max abs difference", "largest difference of an element between naive and flash"},
    {"of the largest element", "the same, divided by the largest element"},
    {"error of naive", "largest difference from the result in double precision"},
    {"error of flash", "largest difference from the result in double precision"},
    {"flash / naive", "the error of flash divided by that of naive"},
    {"format",
     "how q, k, v, out, its gradient and dq, dk, dv are stored; what is stored in bf16 or f16 is computed in "
     "f32"},
    {"bytes of q, k, v", "what the three take as they are stored"},
    {"ms forward", "median time of a forward pass"},
    {"error of out",
     "largest difference from out in double precision, of inputs that were not rounded to the format, as a "
     "share of the largest element; inf if an element is Inf or NaN"},
    {"error of dq",
     "the same for dq, as the backward pass stores it: it reads q, k, v, out and out's gradient in the "
     "format, "
     "sums in the type that is computed in and rounds once"},
    {"error of dk", "the same for dk"},
    {"error of dv", "the same for dv"},
    {"overflows",
     "finite numbers that became Inf when inputs, out and gradients were stored in the format, in one "
     "forward "
     "and backward"},
    {"differs by", "largest difference of an element between the two kernels"},
    {"differs from repeated heads by",
     "largest difference from MHA whose heads repeat the shared ones: 0 is right"},
    {"threshold",
     "90 % of the held-out positions right, or the highest multiple of 10 % that every training of the lab "
     "reaches"},
    {"steps to it",
     "training steps until the threshold is reached, looked at up to 50 times; mean and standard deviation "
     "over "
     "the seeds"},
    {"K/V heads", "heads of keys and values, which the query heads share"},
    {"MHA", "loss of the trained MHA, before its heads are pooled"},
    {"right after", "loss with pooled heads, before any further step"},
    {"+1 % steps", "loss after training on for 1 % of the steps"},
    {"+5 % steps", "loss after training on for 5 % of the steps"},
    {"+10 % steps", "loss after training on for 10 % of the steps"},
    // Checkpoints.
    {"segments", "what is recomputed: each segment of blocks keeps its input and is run again in backward"},
    {"ops recomputed", "operations that run a second time in a step"},
    {"same bits", "whether loss and gradients are those of recomputing nothing, bit for bit"},
    {"page faults", "how often a step touched memory that the system had to find first"},
    {"result", "what one may not have expected of the figures"},
    {"why", "computed from the figures; there is no row where they do not tell"},
    // Where heads look.
    {"head", "counted from 1"},
    {"K/V head", "the head of keys and values that the head reads; GQA and MQA share it"},
    {"induction score",
     "mean p(t, s + 1), where s <= t - 2 is the last position with the same token as t: what followed this "
     "token the last time"},
    {"at the answers", "the same, at the positions alone where the task asks for a token"},
    {"previous token", "mean p(t, t - 1)"},
    {"itself", "mean p(t, t)"},
    {"first token", "mean p(t, 0)"},
    {"sink", "mean share of a row that the sink takes, which belongs to no token"},
    // Profiles.
    {"calls", "how often the op ran in a step: forward, backward and recomputed together"},
    {"total, ms", "its time with the ops that ran inside it"},
    {"self, ms", "its time without the ops that ran inside it"},
    {"self, %", "the same as a share of the step"},
    {"recompute, ms", "of the self time, what a checkpoint ran again"},
    {"saved, MiB", "what the op kept for backward, in the forward pass"},
    {"of the peak, %", "when most bytes were live, the share of them that the op kept"},
};

}  // namespace

std::string_view meaning_of(std::string_view heading) {
  for (const Meaning& entry : kMeanings) {
    if (entry.heading == heading) return entry.meaning;
  }
  return "";
}

Table column_meanings(const std::vector<Table>& tables) {
  Table result = {
      .title = "What the columns mean", .columns = {"column", "meaning"}, .rows = {}, .folded = true};
  std::set<std::string> seen;
  for (const Table& table : tables) {
    for (const std::string& heading : table.columns) {
      const std::string meaning(meaning_of(heading));
      if (!meaning.empty() && seen.insert(heading).second) result.rows.push_back({heading, meaning});
    }
  }
  return result;
}

}  // namespace tilegrad::train

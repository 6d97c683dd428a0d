#include "tilegrad/train/labs/whys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tilegrad/base/format.h"

namespace tilegrad::train {

namespace {

double mean(const std::vector<StageCost>& blocks, Index StageCost::*field) {
  double sum = 0;
  for (const StageCost& block : blocks) sum += static_cast<double>(block.*field);
  return sum / static_cast<double>(std::max<std::size_t>(1, blocks.size()));
}

std::string bytes(double value) { return format_bytes(static_cast<Index>(value)); }

}  // namespace

// Of a pair of query and key flash streams a number of bytes that grows with D², naive moves scores, whose number of
// bytes does not depend on D. Both are taken from the model itself: at D and at 2 D it differs by what is streamed.
std::optional<Why> why_as_many_bytes(const AttentionProblem& problem, Phase phase, Index cache_bytes) {
  constexpr double kAboutEqual = 0.95;
  const double naive = moved_bytes(problem, AttentionKernel::naive, phase, cache_bytes);
  const double flash = moved_bytes(problem, AttentionKernel::flash, phase, cache_bytes);
  if (flash < kAboutEqual * naive) return std::nullopt;
  constexpr Index kNoStream = std::numeric_limits<Index>::max();  // a cache in which every block stays
  const double tensors = moved_bytes(problem, AttentionKernel::flash, phase, kNoStream);
  const double scores = naive - tensors, streamed = flash - tensors;
  const auto size = static_cast<double>(problem.head_size);
  return Why{
      fmt::format("{}: flash moves {} by the model, naive {}", to_string(phase), bytes(flash), bytes(naive)),
      fmt::format(
          "besides the tensors, {}, naive moves the scores, {} at any D; flash streams rows past blocks "
          "that fill the cache of {}, which moves {} at D = {} and grows with D squared: the two are "
          "equal at D = {:.0f}",
          bytes(tensors), bytes(scores), format_bytes(cache_bytes), bytes(streamed), problem.head_size,
          size * std::sqrt(scores / streamed))};
}

// With L blocks of which each keeps S bytes, and an output of O, segments of k blocks need (L / k) O for their inputs,
// and k (S + O) while one of them goes back, which is least at k = sqrt(L O / (S + O)).
std::optional<Why> why_segments_need_more(const ChainCost& chain, Index segments, Index peak_of_segments,
                                          Index peak_of_blocks) {
  const auto layers = std::ssize(chain.blocks);
  const Index length = segments > 0 ? (layers + segments - 1) / segments : 0;
  const double kept = mean(chain.blocks, &StageCost::saved), output = mean(chain.blocks, &StageCost::output);
  const double more = static_cast<double>(length - 1) * (kept + output);
  const double less = static_cast<double>(layers - segments) * output;
  if (peak_of_segments <= peak_of_blocks || more <= less) return std::nullopt;
  const double best = std::sqrt(static_cast<double>(layers) * output / (kept + output));
  return Why{
      fmt::format("{} segments need {}, one for each block {}", segments, format_bytes(peak_of_segments),
                  format_bytes(peak_of_blocks)),
      fmt::format("a block keeps {} for backward, {:.1f} times its output of {}; while a segment of "
                  "{} blocks goes back, it keeps {} more than one block would, and the inputs that it "
                  "saves are only {}. The best length is sqrt(L O / (S + O)) = {:.2g} blocks; it would be "
                  "sqrt(L) = {:.2g} if a block kept its output alone",
                  bytes(kept), kept / output, bytes(output), length, bytes(more), bytes(less), best,
                  std::sqrt(static_cast<double>(layers)))};
}

std::optional<Why> why_no_slower(const RecomputingTimes& t) {
  constexpr double kFewerFaults = 0.8;
  const bool faster = t.verdict == Verdict::less, undecided = t.verdict == Verdict::not_distinguishable;
  if (t.ops == 0 || (!faster && !undecided)) return std::nullopt;
  const std::string result =
      faster
          ? fmt::format("{} recomputes {} ops and takes {:.1f} % less time", t.name, t.ops, -100 * t.measured)
          : fmt::format("{} recomputes {} ops, and no more time can be seen", t.name, t.ops);
  const std::string ops =
      t.predicted ? fmt::format("these ops take {:.1f} % of a step by prediction", 100 * *t.predicted) : "";
  if (undecided && t.predicted && *t.predicted <= t.spread) {
    return Why{result, fmt::format("{}, less than the times spread: {:.1f} %", ops, 100 * t.spread)};
  }
  if (t.faults >= kFewerFaults * t.faults_of_none) return std::nullopt;
  return Why{
      result,
      fmt::format("{}it asks the system for less fresh memory: {:.0f} page faults a step instead of {:.0f}",
                  ops.empty() ? "" : ops + ", but ", t.faults, t.faults_of_none)};
}

Table table_of(const std::vector<Why>& whys) {
  Table table = {.title = "Why", .columns = {"result", "why"}};
  for (const Why& why : whys) table.rows.push_back({why.result, why.reason});
  return table;
}

}  // namespace tilegrad::train

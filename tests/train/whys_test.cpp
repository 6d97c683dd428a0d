#include "tilegrad/train/labs/whys.h"

#include <doctest/doctest.h>

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

AttentionProblem problem_of(Index head_size, Dtype dtype = Dtype::f32) {
  return {.heads = 2, .kv_heads = 2, .tq = 1024, .tk = 1024, .head_size = head_size, .dtype = dtype};
}

// Blocks that keep `saved` bytes and have an output of `output`.
ChainCost chain_of(Index layers, Index saved, Index output) {
  return {.blocks =
              std::vector<StageCost>(static_cast<std::size_t>(layers), {.output = output, .saved = saved})};
}

bool contains(const std::optional<Why>& why, const std::string& part) {
  REQUIRE(why);
  CAPTURE(why->result);
  CAPTURE(why->reason);
  CAPTURE(part);
  return why->result.find(part) != std::string::npos || why->reason.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("why: flash moves as many bytes as naive from the D on at which the model says so") {
  // f32 forward: per pair 4 scores of 4 bytes, against 2 * 4 * D * D / M with M = cache / 4: equal at D = sqrt(2 M).
  constexpr Index kCache = Index{512} << 10;
  CHECK_FALSE(why_as_many_bytes(problem_of(64), Phase::forward, kCache));
  CHECK_FALSE(why_as_many_bytes(problem_of(256), Phase::forward, kCache));
  const auto equal = why_as_many_bytes(problem_of(512), Phase::forward, kCache);
  CHECK(contains(equal, "forward: flash moves "));
  CHECK(contains(equal, "512.0 KiB"));
  CHECK(contains(equal, "equal at D = 512"));
  CHECK(contains(why_as_many_bytes(problem_of(1024), Phase::forward, kCache), "equal at D = 512"));
  // A cache four times as large holds blocks for a D twice as large.
  CHECK_FALSE(why_as_many_bytes(problem_of(512), Phase::forward, 4 * kCache));
  CHECK(contains(why_as_many_bytes(problem_of(1024), Phase::forward, 4 * kCache), "equal at D = 1024"));
  // backward: 7 scores against 4 streamed.
  CHECK(contains(why_as_many_bytes(problem_of(512), Phase::backward, kCache), "equal at D = 479"));
}

TEST_CASE("why: segments need more than single blocks where a block keeps many times its output") {
  const ChainCost heavy = chain_of(6, 14000, 1000);
  const auto why = why_segments_need_more(heavy, 2, 61700, 32300);
  CHECK(contains(why, "2 segments need 60.3 KiB, one for each block 31.5 KiB"));
  CHECK(contains(why, "14.0 times its output"));
  CHECK(contains(why, "segment of 3 blocks"));
  CHECK(contains(why, "The best length is sqrt(L O / (S + O)) = 0.63 blocks"));
  CHECK_FALSE(why_segments_need_more(heavy, 2, 30000, 32300));  // they do not need more
  CHECK_FALSE(why_segments_need_more(heavy, 6, 61700, 32300));  // they are the single blocks
  // A block that keeps little: the inputs that are saved outweigh it, so that the figures do not tell why.
  CHECK_FALSE(why_segments_need_more(chain_of(16, 10, 1000), 4, 61700, 32300));
}

TEST_CASE("why: recomputing costs no time if it is hidden by the spread, or makes up for it in page faults") {
  const RecomputingTimes times = {.name = "mlp",
                                  .ops = 16,
                                  .predicted = 0.02,
                                  .measured = -0.12,
                                  .spread = 0.05,
                                  .faults = 100,
                                  .faults_of_none = 9000,
                                  .verdict = Verdict::less};
  const auto faster = why_no_slower(times);
  CHECK(contains(faster, "mlp recomputes 16 ops and takes 12.0 % less time"));
  CHECK(contains(faster, "2.0 % of a step by prediction"));
  CHECK(contains(faster, "100 page faults a step instead of 9000"));
  RecomputingTimes t = times;
  t.faults = 9000;
  CHECK_FALSE(why_no_slower(t));  // nothing that was measured tells
  t.verdict = Verdict::not_distinguishable;
  CHECK(contains(why_no_slower(t), "mlp recomputes 16 ops, and no more time can be seen"));
  CHECK(contains(why_no_slower(t), "2.0 % of a step by prediction, less than the times spread: 5.0 %"));
  t.predicted = 0.2;
  CHECK_FALSE(why_no_slower(t));
  t.faults = 100;
  CHECK(contains(why_no_slower(t), "20.0 % of a step by prediction, but it asks"));
  t.predicted = std::nullopt;  // page faults alone can explain it, however large the spread
  t.spread = 1;
  REQUIRE(why_no_slower(t));
  CHECK(why_no_slower(t)->reason ==
        "it asks the system for less fresh memory: 100 page faults a step instead of 9000");
  t.faults = 9000;
  CHECK_FALSE(why_no_slower(t));
  t.predicted = 0.2;
  t.verdict = Verdict::greater;
  CHECK_FALSE(why_no_slower(t));  // as expected
  t.verdict = Verdict::less;
  t.ops = 0;
  CHECK_FALSE(why_no_slower(t));  // recomputes nothing
}

#include "tilegrad/train/measure/profile.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "tests/train/profile_helpers.h"
#include "tests/train/run_program.h"
#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/app/check_cases.h"
#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/run/trainer.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// Self times add up to the whole, and no op takes less than its own time.
void check_times(const Profile& profile) {
  const double self = sum_over_ops(profile, [](const OpCost& cost) { return cost.self_ms; });
  CHECK(self <= profile.ms);
  CHECK(self + profile.outside_ms == doctest::Approx(profile.ms));
  for (const OpCost& cost : profile.ops) {
    CAPTURE(cost.op);
    double by_phase = 0;
    for (const PhaseCost& part : cost.phases) by_phase += part.self_ms;
    CHECK(by_phase == doctest::Approx(cost.self_ms));
    CHECK(cost.self_ms >= 0);
    CHECK(cost.total_ms >= cost.self_ms - 1e-9);
    CHECK(cost.total_ms <= profile.ms);
  }
}

// Checks that whatever the tape takes is the op that began last; a checkpoint's forward is that of its parts.
class DoorKeeper final : public OpListener {
 public:
  Index recorded_ops = 0;
  std::vector<std::string_view> open;

 private:
  void begin(std::string_view op) override { open.push_back(op); }
  void end() override { open.pop_back(); }
  void recorded(std::string_view op, Index) override {
    ++recorded_ops;
    if (op == "checkpoint") return;
    REQUIRE_MESSAGE(!open.empty(), op, " has no door");
    CHECK(open.back() == op);
  }
};

}  // namespace

TEST_CASE("profile: every op goes forward and backward through a door with its name") {
  for (const GradcheckCase& c : check_cases()) {
    CAPTURE(c.op);
    std::vector<Var> inputs;
    for (const Tensor& input : c.inputs) inputs.push_back(Var::leaf(input));
    DoorKeeper keeper;
    const ListenScope listening(keeper);
    Tape tape;
    const Var y = c.function(inputs);
    CHECK(keeper.recorded_ops == tape.size());
    tape.backward(y, Tensor::full(y.shape(), y.dtype(), 1.0));
    CHECK(keeper.open.empty());
  }
}

TEST_CASE("profile: calls and saved bytes are those of the tape") {
  const Var x = random_leaf({4, 3}, 1), weight = random_leaf({2, 3}, 2);
  Profiler profiler;
  Index nodes = 0, saved = 0;
  {
    const Profiler::Call call(profiler, 1);
    Tape tape;
    const Var h = linear(x, weight);
    const Var y = mean(gelu(add(h, h)));
    nodes = tape.size();
    saved = Saved::total_bytes();
    tape.backward(y);
  }
  const Profile profile = profiler.profile("call");
  CHECK(profile.of == "call 1");
  CHECK(profile.calls == 1);
  CHECK(nodes == 4);
  CHECK(calls_in(profile, Phase::forward) == nodes);
  CHECK(calls_in(profile, Phase::backward) == nodes);
  CHECK(calls_in(profile, Phase::recompute) == 0);
  CHECK(saved_in(profile, Phase::forward) == saved);
  CHECK(cost_of(profile, "linear").in(Phase::forward).saved_bytes ==
        x.value().bytes() + weight.value().bytes());
  CHECK(cost_of(profile, "add").in(Phase::forward).saved_bytes == 0);
  check_times(profile);
}

TEST_CASE("profile: at the peak an op holds what it saved, and nothing once backward has been there") {
  const Var x = random_leaf({64, 4}, 1);
  constexpr Index kLarge = 1 << 14;
  Profiler profiler;
  {
    const Profiler::Call call(profiler, 1);
    Tape tape;
    const Var y = sum(gelu(gelu(x)));
    Tensor::empty({kLarge}, Dtype::f32);
    tape.backward(y);
  }
  CHECK(cost_of(profiler.profile("call"), "gelu").at_peak == 2 * x.value().bytes());
  const Index peak = profiler.profile("call").peak_bytes;
  {
    const Profiler::Call call(profiler, 2);
    {
      Tape tape;
      tape.backward(sum(gelu(gelu(x))));
    }
    Tensor::empty({2 * kLarge}, Dtype::f32);
  }
  const Profile both = profiler.profile("call");
  CHECK(both.of == "calls 1 to 2");
  CHECK(both.peak_bytes > peak);
  CHECK(cost_of(both, "gelu").at_peak == 0);
}

TEST_CASE(
    "profile: an op counts the time of those inside of it as total, and once if it is inside of itself") {
  const Var x = random_leaf({64, 64}, 1);
  Profiler profiler;
  {
    const Profiler::Call call(profiler, 1);
    Tape tape;
    const auto inner = [](const Var& v) { return gelu(gelu(v)); };
    tape.backward(mean(checkpoint([&](const Var& v) { return checkpoint(inner, v); }, x)));
  }
  const Profile profile = profiler.profile("call");
  check_times(profile);
  const OpCost& outer = cost_of(profile, "checkpoint");
  CHECK(outer.in(Phase::backward).calls == 2);
  const OpCost& gelus = cost_of(profile, "gelu");
  CHECK(gelus.in(Phase::recompute).calls == 4);  // run by the outer one, then by the inner one
  const double inside = gelus.self_ms - gelus.in(Phase::forward).self_ms;
  CHECK(outer.total_ms == doctest::Approx(outer.self_ms + inside));
}

TEST_CASE(
    "profile: --checkpoint block recomputes what forward did in every block but the last, none recomputes "
    "nothing") {
  const Profile none = profile_of_step(with_checkpoint("none")),
                block = profile_of_step(with_checkpoint("block"));
  check_times(none);
  check_times(block);
  CHECK(calls_in(none, Phase::recompute) == 0);
  CHECK(saved_in(none, Phase::recompute) == 0);
  CHECK(calls_in(none, Phase::backward) == calls_in(none, Phase::forward));
  CHECK(calls_in(block, Phase::forward) == calls_in(none, Phase::forward));
  CHECK(saved_in(block, Phase::forward) < saved_in(none, Phase::forward));
  const OpCost& attention = cost_of(block, "attention (flash)");
  CHECK(attention.in(Phase::recompute).calls == 1);  // of two
  CHECK(2 * attention.in(Phase::recompute).saved_bytes ==
        cost_of(none, "attention (flash)").in(Phase::forward).saved_bytes);
  CHECK(cost_of(block, "checkpoint").in(Phase::backward).calls == 1);
  CHECK(cost_of(block, "linear_cross_entropy").in(Phase::recompute).calls == 0);
  CHECK(cost_of(block, "update").in(Phase::update).calls == 1);
}

TEST_CASE("profile: --checkpoint elementwise recomputes norms and activations, and saves their bytes") {
  const Profile none = profile_of_step(with_checkpoint("none")),
                cheap = profile_of_step(with_checkpoint("elementwise"));
  check_times(cheap);
  CHECK(calls_in(cheap, Phase::recompute) == 2 * 3);  // two norms and an activation in each block
  CHECK(cost_of(cheap, "layernorm").in(Phase::recompute).calls == 2 * 2);
  CHECK(cost_of(cheap, "gelu").in(Phase::recompute).calls == 2);
  CHECK(saved_in(cheap, Phase::recompute) == 0);
  CHECK(calls_in(cheap, Phase::forward) == calls_in(none, Phase::forward));
  CHECK(cost_of(cheap, "linear").in(Phase::forward).saved_bytes <
        cost_of(none, "linear").in(Phase::forward).saved_bytes);
}

TEST_CASE("profile: what is written is what is read, and damage is a warning") {
  const TemporaryFolder folder;
  const std::string file = folder / "ops.json";
  std::vector<std::string> warnings;
  CHECK(read_profile(file, warnings).calls == 0);
  CHECK(warnings.empty());
  Profile profile = profile_of_step(with_checkpoint("block"));
  profile.interrupted = true;
  write_profile(file, profile);
  CHECK(to_json(read_intact(file)) == to_json(profile));
  for (const char* content : {"{\"of\": ", "[]", "{\"of\": 3}"}) {
    write_file(file, content);
    warnings.clear();
    CHECK(read_profile(file, warnings).calls == 0);
    CHECK(warnings == std::vector<std::string>{file + ": is not a profile; left out"});
  }
}

TEST_CASE("profile: a table has averages of a call, and a dash for nothing") {
  Profile profile = {.of = "steps 2 to 3", .calls = 2, .ms = 10, .outside_ms = 2, .peak_bytes = 2 << 20};
  profile.ops = {{.op = "linear", .total_ms = 8, .self_ms = 8, .at_peak = 1 << 20}};
  profile.ops[0].in(Phase::forward) = {.calls = 6, .self_ms = 8, .saved_bytes = 4 << 20};
  const Table table = profile_table("mine", profile);
  CHECK(table.title == "Ops of mine: mean of steps 2 to 3, 5.00 ms, peak 2.0 MiB");
  REQUIRE(table.rows.size() == 2);
  CHECK(table.rows[0] == std::vector<std::string>{"linear", "3", "4.000", "4.000", "80.0", "4.000", "–", "–",
                                                  "2.000", "50.0"});
  CHECK(table.rows[1][3] == "1.000");
  profile.interrupted = true;
  CHECK(profile_table("mine", profile).title.find("steps 2 to 3 (interrupted)") != std::string::npos);
}

TEST_CASE("profile: the stages of attention and what is in none add up to its time on all threads") {
  const kernels::ThreadScope threads(2);
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    RunConfig config = with_checkpoint("block");
    config.model.attention.kernel = kernel;
    const Profile profile = profile_of_step(config);
    CAPTURE(kernel);
    const OpCost& attention = cost_of(profile, fmt::format("attention ({})", name_of(kernel)));
    for (const Phase phase : {Phase::forward, Phase::backward, Phase::recompute}) {
      const PhaseCost& part = attention.in(phase);
      CHECK(part.thread_ms == doctest::Approx(2 * part.self_ms));
      double sum = part.in_no_stage_ms();
      for (const StageTime& stage : part.stages) sum += stage.thread_ms;
      CHECK(sum == doctest::Approx(part.thread_ms));
      CHECK(part.in_no_stage_ms() >= 0);  // else a stage had counted something twice
      CHECK(part.stages.size() > 3);
    }
    CHECK(cost_of(profile, "linear").in(Phase::forward).stages.empty());
  }
}

TEST_CASE("profile: a table has the stages of an op below it, as shares of its time on all threads") {
  Profile profile = {.of = "step 2", .calls = 1, .ms = 10};
  profile.ops = {{.op = "attention", .total_ms = 10, .self_ms = 10}};
  profile.ops[0].in(Phase::forward) = {
      .calls = 1, .self_ms = 4, .thread_ms = 8, .stages = {{"Q Kᵀ", 4}, {"softmax", 3}}};
  profile.ops[0].in(Phase::backward) = {.calls = 1, .self_ms = 6, .thread_ms = 12, .stages = {{"Q Kᵀ", 12}}};
  const Table table = profile_table("mine", profile);
  const auto shares = [&](std::size_t row) {
    return std::vector<std::string>(table.rows[row].begin() + 5, table.rows[row].begin() + 8);
  };
  REQUIRE(table.rows.size() == 5);
  CHECK(table.rows[1][0] == "\u00a0\u00a0Q Kᵀ");
  CHECK(shares(1) == std::vector<std::string>{"50.0 %", "100.0 %", "–"});
  CHECK(table.rows[2][0] == "\u00a0\u00a0softmax");
  CHECK(shares(2) == std::vector<std::string>{"37.5 %", "–", "–"});
  CHECK(table.rows[3][0] == "\u00a0\u00a0in no stage");
  CHECK(shares(3) == std::vector<std::string>{"12.5 %", "–", "–"});
  CHECK(table.rows[4][0] == "(no op)");
}

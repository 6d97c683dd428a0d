#include "tilegrad/train/measure/profile.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <thread>

#include "tests/train/run_program.h"
#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/train/app/check_cases.h"
#include "tilegrad/train/app/compare_runs.h"
#include "tilegrad/train/labs/child.h"
#include "tilegrad/train/labs/lab_profile.h"
#include "tilegrad/train/measure/chrome_trace.h"
#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/trainer.h"

using namespace tilegrad;
using namespace tilegrad::train;
using nlohmann::json;

namespace {

Var random_leaf(const Shape& shape, std::uint64_t seed) {
  return Var::leaf(Tensor::normal(shape, Dtype::f32, RandomKey{seed}));
}

const OpCost& cost_of(const Profile& profile, std::string_view op) {
  const auto found =
      std::find_if(profile.ops.begin(), profile.ops.end(), [&](const OpCost& cost) { return cost.op == op; });
  REQUIRE_MESSAGE(found != profile.ops.end(), op, " is missing");
  return *found;
}

template <class Value>
auto sum_over_ops(const Profile& profile, Value&& value_of) {
  auto sum = value_of(OpCost());
  for (const OpCost& cost : profile.ops) sum += value_of(cost);
  return sum;
}

Index calls_in(const Profile& profile, Phase phase) {
  return sum_over_ops(profile, [&](const OpCost& cost) { return cost.in(phase).calls; });
}

Index saved_in(const Profile& profile, Phase phase) {
  return sum_over_ops(profile, [&](const OpCost& cost) { return cost.in(phase).saved_bytes; });
}

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

RunConfig with_checkpoint(const std::string& checkpoint) {
  RunConfig config = tiny_config();
  config.checkpoint = parse_checkpoint_policy(checkpoint);
  return config;
}

Profile profile_of_step(const RunConfig& config) {
  Trainer trainer(config);
  Profiler profiler;
  trainer.step(&profiler);
  return profiler.profile("step");
}

// The numbers that do not depend on the clock.
std::vector<std::string> timeless(const Profile& profile) {
  std::vector<std::string> lines;
  for (const OpCost& cost : profile.ops) {
    std::string line = fmt::format("{} {}", cost.op, cost.at_peak);
    for (const PhaseCost& part : cost.phases) line += fmt::format(" {} {}", part.calls, part.saved_bytes);
    lines.push_back(line);
  }
  std::sort(lines.begin(), lines.end());
  return lines;
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

Profile read_intact(const std::string& file) {
  REQUIRE(std::filesystem::exists(file));
  std::vector<std::string> warnings;
  const Profile profile = read_profile(file, warnings);
  CHECK(warnings.empty());
  return profile;
}

// Times three calls.
CallTimer timer_of(const std::string& profile) { return CallTimer({.repeats = 3, .profile = profile}); }

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
    "profile: --checkpoint block recomputes what forward did inside of the blocks, none recomputes nothing") {
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
  CHECK(attention.in(Phase::recompute).calls == 2);
  CHECK(attention.in(Phase::recompute).saved_bytes ==
        cost_of(none, "attention (flash)").in(Phase::forward).saved_bytes);
  CHECK(cost_of(block, "checkpoint").in(Phase::backward).calls == 2);
  CHECK(cost_of(block, "cross_entropy").in(Phase::recompute).calls == 0);
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

TEST_CASE("profile: the trace is JSON whose spans nest, with the live bytes as a counter") {
  const TemporaryFolder folder;
  Trainer trainer(with_checkpoint("block"));
  Profiler profiler;
  for (int i = 0; i < 2; ++i) trainer.step(&profiler);
  profiler.trace("step").write(folder / "profile.json");
  const json trace = json::parse(read_file(folder / "profile.json"));

  std::vector<json> spans;
  std::size_t counted = 0;
  double highest = 0;
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X") spans.push_back(event);
    if (event.at("ph") != "C") continue;
    CHECK(event.at("name") == "live bytes");
    ++counted;
    highest = std::max(highest, event.at("args").at("value").get<double>());
  }
  const Profile profile = profiler.profile("step");
  CHECK(counted == profiler.memory(1).size() + profiler.memory(2).size());
  CHECK(highest == static_cast<double>(profile.peak_bytes));
  CHECK(static_cast<Index>(spans.size()) ==
        profile.calls + sum_over_ops(profile, [](const OpCost& cost) { return cost.calls(); }));

  // Whatever begins ends, and before what began earlier and had not ended by then.
  std::stable_sort(spans.begin(), spans.end(),
                   [](const json& a, const json& b) { return a.at("ts") < b.at("ts"); });
  std::vector<double> ends;
  std::vector<std::string> of_calls;
  for (const json& span : spans) {
    const double begin = span.at("ts"), duration = span.at("dur");
    REQUIRE(duration >= 0);
    constexpr double kRounding = 1e-6;  // of begin + duration
    while (!ends.empty() && ends.back() <= begin + kRounding) ends.pop_back();
    if (ends.empty()) of_calls.push_back(span.at("name"));
    if (!ends.empty()) CHECK(begin + duration <= ends.back() + kRounding);
    ends.push_back(begin + duration);
  }
  CHECK(of_calls == std::vector<std::string>{"step 1", "step 2"});
}

TEST_CASE("profile: the timeline of a call begins with it and tells its phases in their order") {
  Trainer trainer(with_checkpoint("block"));
  Profiler profiler;
  for (int i = 0; i < 2; ++i) trainer.step(&profiler);
  CHECK(profiler.memory(3).empty());
  for (const Index call : {1, 2}) {
    CAPTURE(call);
    const MemoryTimeline timeline = profiler.memory(call);
    REQUIRE_FALSE(timeline.empty());
    CHECK(timeline.front().ms >= 0);
    CHECK(timeline.front().ms < timeline.back().ms);
    CHECK(timeline.back().ms <= profiler.profile("step").ms);
    std::vector<Phase> phases;
    for (const MemoryEvent& event : timeline) {
      if (phases.empty() || phases.back() != event.phase) phases.push_back(event.phase);
    }
    // Each of the two blocks is run again, and then goes backward.
    CHECK(phases == std::vector<Phase>{Phase::forward, Phase::backward, Phase::recompute, Phase::backward,
                                       Phase::recompute, Phase::backward, Phase::update});
  }
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

TEST_CASE(
    "train --profile: changes no bit of losses and weights, and hides nothing of the memory's timeline") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "plain")).code == kSuccess);
  const Output output = run_program(tiny_training(folder / "profiled", {"--profile"}));
  REQUIRE(output.code == kSuccess);
  CHECK(timeless_metrics(folder / "plain") == timeless_metrics(folder / "profiled"));
  CHECK(read_file(folder / "plain/model.safetensors") == read_file(folder / "profiled/model.safetensors"));
  const auto live_bytes = [](const std::string& file) {
    std::vector<Index> bytes;
    std::vector<std::string> warnings;
    for (const MemoryEvent& event : read_memory_timeline(file, warnings)) bytes.push_back(event.live_bytes);
    return bytes;
  };
  CHECK(live_bytes(folder / "plain/memory.jsonl") == live_bytes(folder / "profiled/memory.jsonl"));

  CHECK_FALSE(std::filesystem::exists(folder / "plain/profile.json"));
  CHECK_FALSE(std::filesystem::exists(folder / "plain/ops.json"));
  const Profile profile = read_intact(folder / "profiled/ops.json");
  CHECK(profile.of == "steps 2 to 4");
  CHECK(profile.calls == 3);
  CHECK(json::accept(read_file(folder / "profiled/profile.json")));
  CHECK(output.out.find("Ops of sort: mean of steps 2 to 4") != std::string::npos);
  CHECK(output.out.find("attention (flash)") != std::string::npos);
}

TEST_CASE("train --profile: two runs agree in all but times, and a plain run forgets an earlier profile") {
  const TemporaryFolder folder;
  const std::string a = folder / "a", b = folder / "b";
  REQUIRE(run_program(tiny_training(a, {"--profile"})).code == kSuccess);
  REQUIRE(run_program(tiny_training(b, {"--profile"})).code == kSuccess);
  CHECK(timeless(read_intact(a + "/ops.json")) == timeless(read_intact(b + "/ops.json")));
  REQUIRE(run_program(tiny_training(a, {"--overwrite"})).code == kSuccess);
  CHECK_FALSE(std::filesystem::exists(a + "/ops.json"));
  CHECK_FALSE(std::filesystem::exists(a + "/profile.json"));
}

TEST_CASE("train --profile: a short run is profiled as far as it goes, a resumed one anew") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run, {"--profile", "--stop-after", "1"})).code == kSuccess);
  CHECK(read_intact(run + "/ops.json").of == "step 1");
  REQUIRE(run_program(tiny_training(run, {"--profile", "--stop-after", "3", "--overwrite"})).code ==
          kSuccess);
  CHECK(read_intact(run + "/ops.json").of == "steps 2 to 3");
  const Output output = run_program({"train", "--resume", run, "--quiet", "--json", "--profile"});
  REQUIRE(output.code == kSuccess);
  CHECK(read_intact(run + "/ops.json").of == "steps 5 to 7");
  CHECK(json::parse(output.out).at("profile").at("calls") == 3);
}

TEST_CASE("train --profile: after Ctrl-C there is what there was, and it is said") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  std::thread user([&] {
    while (!std::filesystem::exists(run + "/ops.json")) std::this_thread::yield();
    kill(getpid(), SIGINT);
  });
  // Evaluations between the steps leave the user time.
  const Output output = run_program(
      tiny_training(run, {"--steps", "1000000", "--eval-every", "1", "--width", "64", "--profile"}));
  user.join();
  CHECK(output.code == kInterrupted);
  const auto done = static_cast<Index>(read_metrics(run + "/metrics.jsonl").steps.size());
  const Profile profile = read_intact(run + "/ops.json");
  CHECK(profile.calls == std::clamp<Index>(done - 1, 1, 3));
  CHECK(profile.interrupted == (done < 4));
  CHECK((output.out.find(", then came the interrupt, in ") != std::string::npos) == (done < 4));
  CHECK(output.out.find("Ops of sort: mean of " + profile.of) != std::string::npos);
  CHECK(json::accept(read_file(run + "/profile.json")));
}

TEST_CASE(
    "compare --profile: each variant has a table of its own, printed, in the report and in compare.json") {
  const TemporaryFolder folder;
  RunConfig config = tiny_config();
  config.steps = 5;
  config.warmup = 0;
  config.eval_every = 5;
  config.out = folder / "cmp";
  std::ostringstream out, err;
  const int code = run_comparison(config,
                                  {.variants = {"mha-naive", "mha-flash-ckpt"},
                                   .quiet = true,
                                   .profile = true,
                                   .program = program_file()},
                                  {.out = out, .err = err});
  REQUIRE(code == kSuccess);
  const json rows = json::parse(read_file(folder / "cmp/compare.json"));
  const std::string page = read_file(folder / "cmp/report.html");
  for (const json& row : rows) {
    const auto title = "Ops of " + row.at("variant").get<std::string>() + ": mean of steps 2 to 4";
    CHECK(row.at("profile").at("calls") == 3);
    CHECK(out.str().find(title) != std::string::npos);
    CHECK(page.find(title) != std::string::npos);
  }
  CHECK(rows.size() == 2);
  CHECK(out.str().find("attention (naive)") != std::string::npos);
  CHECK(json::accept(read_file(folder / "cmp/mha-naive/profile.json")));
}

TEST_CASE("lab --profile: every timed call is profiled, and those before an interruption remain") {
  const TemporaryFolder folder;
  const Var x = random_leaf({8}, 1);
  CHECK(timer_of(folder / "a").time("step", [&] { gelu(x); }).size() == 3);
  const Profile all = read_intact(folder / "a-step.ops.json");
  CHECK(all.of == "calls 1 to 3");
  CHECK(cost_of(all, "gelu").calls() == 3);
  CHECK(json::accept(read_file(folder / "a-step.json")));

  int call = 0;
  const auto stops = [&] {
    gelu(x);
    if (++call == 3) fail("stop");
  };
  CHECK_THROWS_AS(timer_of(folder / "b").time("step", stops), Error);
  CHECK(read_intact(folder / "b-step.ops.json").of == "calls 1 to 2");
  CHECK(ListenScope::listening() == nullptr);

  timer_of("").time("step", [&] { gelu(x); });
  CHECK(folder.entries() == 4);
}

TEST_CASE("lab --profile: tables stand in a folder next to the results, which the next lab empties") {
  const TemporaryFolder folder;
  const LabOptions options = {.out = folder / "lab", .profile = true};
  CHECK(profile_tables(options).empty());
  CHECK(profile_stem(options, "").empty());
  const Var x = random_leaf({8}, 1);
  CallTimer({.repeats = 2, .profile = profile_stem(options, "flash-64")}).time("forward", [&] { gelu(x); });
  const auto tables = profile_tables(options);
  REQUIRE(tables.size() == 1);
  CHECK(tables[0].title.starts_with("Ops of flash-64-forward: mean of calls 1 to 2"));
  clear_profiles(options);
  CHECK(profile_tables(options).empty());
}

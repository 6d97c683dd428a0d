#include "tilegrad/train/measure/chrome_trace.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/temporary_folder.h"
#include "tests/train/profile_helpers.h"
#include "tilegrad/base/file.h"
#include "tilegrad/train/measure/memory_timeline.h"

using namespace tilegrad;
using namespace tilegrad::train;
using test::TemporaryFolder;

TEST_CASE("chrome trace: events, counters and names are entries of one JSON list") {
  const TemporaryFolder folder;
  ChromeTrace trace;
  trace.process_name("program");
  trace.thread_name(3, "worker");
  trace.add({.name = "a \"quoted\" name",
             .category = "work",
             .begin_us = 1.5,
             .duration_us = 2.5,
             .thread = 3,
             .details = {{"step", 7}}});
  trace.counter("bytes", 4, 1024);
  trace.write(folder / "trace.json");
  const nlohmann::json entries = nlohmann::json::parse(read_file(folder / "trace.json"))["traceEvents"];
  REQUIRE(entries.size() == 4);
  CHECK(entries[0] == nlohmann::json::parse(R"({"ph": "M", "name": "process_name", "pid": 1, "tid": 0,
                                      "args": {"name": "program"}})"));
  CHECK(entries[1] == nlohmann::json::parse(R"({"ph": "M", "name": "thread_name", "pid": 1, "tid": 3,
                                      "args": {"name": "worker"}})"));
  CHECK(entries[2] ==
        nlohmann::json::parse(R"({"ph": "X", "name": "a \"quoted\" name", "cat": "work", "ts": 1.5,
                                      "dur": 2.5, "pid": 1, "tid": 3, "args": {"step": 7}})"));
  CHECK(entries[3] == nlohmann::json::parse(
                          R"({"ph": "C", "name": "bytes", "ts": 4.0, "pid": 1, "args": {"value": 1024.0}})"));
}

TEST_CASE("chrome trace: without events it is an empty list") {
  const TemporaryFolder folder;
  ChromeTrace().write(folder / "trace.json");
  CHECK(nlohmann::json::parse(read_file(folder / "trace.json"))["traceEvents"].empty());
}

TEST_CASE("profile: the trace is JSON whose spans nest, with the live bytes as a counter") {
  const TemporaryFolder folder;
  Trainer trainer(with_checkpoint("block"));
  Profiler profiler;
  for (int i = 0; i < 2; ++i) trainer.step(&profiler);
  profiler.trace("step").write(folder / "profile.json");
  const nlohmann::json trace = nlohmann::json::parse(read_file(folder / "profile.json"));

  std::vector<nlohmann::json> spans;
  std::size_t counted = 0;
  double highest = 0;
  for (const nlohmann::json& event : trace.at("traceEvents")) {
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
                   [](const nlohmann::json& a, const nlohmann::json& b) { return a.at("ts") < b.at("ts"); });
  std::vector<double> ends;
  std::vector<std::string> of_calls;
  for (const nlohmann::json& span : spans) {
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
    // The second block goes backward; the first one is run again, and then does.
    CHECK(phases == std::vector<Phase>{Phase::forward, Phase::backward, Phase::recompute, Phase::backward,
                                       Phase::update});
  }
}

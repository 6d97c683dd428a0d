#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/train/run_program.h"
#include "tilegrad/train/app/run_options.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/memory_chart.h"
#include "tilegrad/train/report/page.h"
#include "tilegrad/train/report/run_page.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/presets.h"
#include "tilegrad/train/run/run_command_line.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

nlohmann::json written(const Report& report) {
  const TemporaryFolder folder;
  write_report(folder / "report.html", report);
  return data_of(read_file(folder / "report.html"));
}

std::string value_of(const Report& report, const std::string& fact) {
  for (const auto& [name, value] : report.facts) {
    if (name == fact) return value;
  }
  return "";
}

// What the command line "tilegrad train <options>" stands for; no option here has a quote.
RunConfig parsed(const std::string& options) {
  CLI::App app;
  RunOptions run(app);
  app.parse(options, /*program_name_included=*/false);
  return run.resolve();
}

void add_to_file(const std::string& file, const std::string& text) {
  write_file(file, read_file(file) + text);
}

}  // namespace

TEST_CASE("report: the page holds everything and refers to nothing outside") {
  const TemporaryFolder folder;
  write_report(folder / "report.html", {.title = "one & <two>"});
  const std::string page = read_file(folder / "report.html");
  CHECK(page.find("<title>one &amp; &lt;two&gt;</title>") != std::string::npos);
  CHECK(page.find("Chart.js v3") != std::string::npos);
  CHECK(page.find("{{") == std::string::npos);
  CHECK(page.find("src=") == std::string::npos);
  CHECK(page.find("href=") == std::string::npos);
  CHECK_FALSE(std::filesystem::exists(folder / "report.html.tmp"));
}

TEST_CASE("report: no name can end the script or fill another part of the page") {
  const std::string hostile = "</script><!--<script>{{chart.js}}\xff";
  const auto page =
      written({.title = hostile, .charts = {{.title = hostile, .series = {{.name = hostile}}}}});
  const std::string replaced = "</script><!--<script>{{chart.js}}\uFFFD";  // the byte was no UTF-8
  CHECK(page["title"] == replaced);
  CHECK(page["charts"][0]["series"][0]["name"] == replaced);
}

TEST_CASE("report: numbers keep all their digits, and what is not finite is a gap") {
  const double inf = std::numeric_limits<double>::infinity();
  const auto page =
      written({.charts = {{.series = {{.points = {{1, 0.1}, {2, std::nan("")}, {3, -inf}, {4, 1.0 / 3}}}}}}});
  const auto& points = page["charts"][0]["series"][0]["points"];
  CHECK(points[0][1] == 0.1);
  CHECK(points[1][1].is_null());
  CHECK(points[2][1].is_null());
  CHECK(points[3][1] == 1.0 / 3);
}

TEST_CASE(
    "report: runs that train differently stand side by side, with what they share and where they differ") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "naive", {"--attention", "naive"})).code == kSuccess);
  REQUIRE(run_program(tiny_training(folder / "flash", {"--checkpoint", "block", "--seed", "7"})).code ==
          kSuccess);
  const Output output =
      run_program({"report", folder / "naive", folder / "flash/", "--out", folder / "r.html"});
  CHECK(output.code == kSuccess);
  const auto page = data_of(read_file(folder / "r.html"));
  CHECK(page["title"] == "2 runs on sort, side by side");
  CHECK(output.out.starts_with(page["finding"].get<std::string>()));
  CHECK(page["warnings"].empty());

  const Report report = run_page(load_runs({folder / "naive", folder / "flash"}));
  CHECK(value_of(report, "seed") == "naive: 1; flash: 7");
  CHECK(value_of(report, "model") == "2 layers, 2 heads, width 16, context 11, f32");
  CHECK(value_of(report, "command of flash").find("--checkpoint block --steps 12") != std::string::npos);
  CHECK_FALSE(value_of(report, "openblas").empty());
  REQUIRE(report.charts.size() == 8);
  const Chart& memory = report.charts[1];
  CHECK(memory.series[0].shaded.empty());
  CHECK(memory.series[1].shaded.size() == 1);  // one for each block but the last
}

TEST_CASE("report: the peak is split into parts that sum to it") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "run")).code == kSuccess);
  const Metrics metrics = read_metrics(folder / "run/metrics.jsonl");
  Index sum = 0;
  for (const Index bytes : metrics.steps[3].at_peak) sum += bytes;
  CHECK(sum == metrics.steps[3].peak_bytes);
  CHECK(sum > 0);
}

TEST_CASE("report: the timeline of a step reaches its peak and tells the phases in their order") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "run", {"--checkpoint", "block"})).code == kSuccess);
  std::vector<std::string> damage;
  const MemoryTimeline timeline = read_memory_timeline(folder / "run/memory.jsonl", damage);
  REQUIRE(timeline.size() > 20);
  Index peak = 0;
  std::vector<Phase> phases;
  for (const MemoryEvent& event : timeline) {
    peak = std::max(peak, event.live_bytes);
    if (phases.empty() || phases.back() != event.phase) phases.push_back(event.phase);
  }
  CHECK(peak == read_metrics(folder / "run/metrics.jsonl").steps[1].peak_bytes);
  const std::vector<Phase> expected = {Phase::forward, Phase::backward, Phase::recompute, Phase::backward,
                                       Phase::update};
  CHECK(phases == expected);
}

TEST_CASE("report: a timeline of many events is thinned without losing its extremes") {
  MemoryTimeline timeline;
  for (int i = 0; i < 100000; ++i) {
    const Index live = i == 77777 ? Index{5} << 20 : Index{1 + i % 2} << 20;
    timeline.push_back(
        {.ms = 1.0 * i, .phase = i < 50000 ? Phase::forward : Phase::backward, .live_bytes = live});
  }
  const Chart chart = memory_chart({{"run", timeline}});
  const auto& points = chart.series[0].points;
  CHECK(points.size() < 2000);
  CHECK(std::is_sorted(points.begin(), points.end()));
  CHECK(points.front() == std::pair(0.0, 1.0));
  const auto highest = *std::max_element(points.begin(), points.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
  CHECK(highest.second == 5);
  CHECK(highest.first == doctest::Approx(1 + 27777.0 / 50000));
}

TEST_CASE("report: equal ops draw equal stairs, however long they took") {
  const auto timeline_of = [](double slow) {
    return MemoryTimeline{{.ms = 0, .phase = Phase::forward, .live_bytes = 1 << 20},
                          {.ms = slow, .op = 1, .phase = Phase::forward, .live_bytes = 2 << 20},
                          {.ms = slow + 1, .op = 2, .phase = Phase::backward, .live_bytes = 3 << 20},
                          {.ms = slow + 2, .op = 3, .phase = Phase::backward, .live_bytes = 2 << 20},
                          {.ms = slow + 9, .op = 4, .phase = Phase::update, .live_bytes = 1 << 20}};
  };
  const Chart chart = memory_chart({{"quick", timeline_of(1)}, {"slow", timeline_of(1000)}});
  using Points = std::vector<std::pair<double, double>>;
  CHECK(chart.series[0].points == Points{{0, 1}, {0.5, 2}, {1, 3}, {1.5, 2}, {2, 1}, {2.2, 1}});
  CHECK(chart.series[1].points == chart.series[0].points);
  CHECK(chart.note.find("recomputes") == std::string::npos);
  MemoryTimeline replayed = timeline_of(1);
  replayed[3].phase = Phase::recompute;
  CHECK(memory_chart({{"run", replayed}}).note.find("a checkpoint recomputes") != std::string::npos);
}

TEST_CASE("report: a single run is not compared with itself, and what nobody measured has no column") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "a")).code == kSuccess);
  REQUIRE(run_program(tiny_training(folder / "b")).code == kSuccess);
  const auto columns = [](const LoadedRuns& loaded) { return results_table(loaded.runs).columns; };
  const auto has = [](const std::vector<std::string>& names, const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const auto one = columns(load_runs({folder / "a"})), two = columns(load_runs({folder / "a", folder / "b"}));
  CHECK(has(one, "val loss"));
  CHECK_FALSE(has(one, "loss differs by"));
  CHECK(has(two, "loss differs by"));
  CHECK_FALSE(has(two, "peak RSS"));  // that of a process which `compare` started
}

TEST_CASE("report: damaged and half-written lines are reported, and the rest is shown") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run)).code == kSuccess);
  const std::string metrics = run + "/metrics.jsonl";
  write_file(metrics, "[1]\nnonsense\n" + read_file(metrics) + "{\"step\": 13, \"los");
  add_to_file(run + "/memory.jsonl", "{\"ms\": 1, \"phase\": \"lunch\", \"live_bytes\": 1}\n");
  write_file(run + "/environment.json", "{");
  const Output output = run_program({"report", run, "--out", folder / "r.html"});
  CHECK(output.code == kSuccess);
  const auto page = data_of(read_file(folder / "r.html"));
  REQUIRE(page["warnings"].size() == 3);
  CHECK(page["warnings"][0] == run + "/environment.json: is not a JSON object; left out");
  CHECK(page["warnings"][1] ==
        metrics +
            ": 2 damaged lines, the first is line 1; the last line was written only in part; "
            "left out");
  CHECK(page["warnings"][2].get<std::string>().find("memory.jsonl: 1 damaged line, the first is") !=
        std::string::npos);
  for (const auto& warning : page["warnings"]) {
    CHECK(output.err.find("warning: " + warning.get<std::string>() + "\n") != std::string::npos);
  }
  CHECK(page["charts"][0]["series"][0]["points"].size() == 12);
}

TEST_CASE("report: a run of a comparison that cannot be read is left out and reported") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "all/a")).code == kSuccess);
  REQUIRE(run_program(tiny_training(folder / "all/b")).code == kSuccess);
  write_file(folder / "all/b/config.json", "{");
  write_file(folder / "all/compare.json", "{");
  const Report report = run_page(load_runs({folder / "all"}));
  CHECK(report.tables[0].rows.size() == 1);
  REQUIRE(report.warnings.size() == 2);
  CHECK(report.warnings[0].ends_with("compare.json: is not a JSON array; left out"));
  CHECK(report.warnings[1].ends_with("b/config.json: is not a JSON object"));
}

TEST_CASE(
    "report: of a comparison stands what compare.json names, with its peak RSS, and not an older variant") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "all/new")).code == kSuccess);
  REQUIRE(run_program(tiny_training(folder / "all/old")).code == kSuccess);
  CHECK(run_page(load_runs({folder / "all"})).tables[0].rows.size() == 2);
  write_file(folder / "all/compare.json", R"([{"variant": "new", "peak_rss": 3145728}])");
  const Report report = run_page(load_runs({folder / "all"}));
  REQUIRE(report.tables[0].rows.size() == 1);
  CHECK(report.tables[0].rows[0].front() == "new");
  const Table& results = report.tables[0];
  const auto rss = std::find(results.columns.begin(), results.columns.end(), "peak RSS");
  REQUIRE(rss != results.columns.end());
  CHECK(results.rows[0][rss - results.columns.begin()] == "3.0 MiB");
}

TEST_CASE("report: a folder without a run and a file that cannot be written are errors of one line") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "empty");
  write_file(folder / "file", "");
  check_error({"report", folder / "nothing"}, kFailure, "nothing: no such folder");
  check_error({"report", folder / "file"}, kFailure, "file: is not a folder");
  check_error({"report", folder / "empty"}, kFailure, "empty: holds no run");
  CHECK(run_program({"report"}).code == kWrongCommandLine);
  REQUIRE(run_program(tiny_training(folder / "run")).code == kSuccess);
  check_error({"report", folder / "run", "--out", folder / "none/r.html"}, kFailure, "cannot be written");
}

TEST_CASE("report: the command of a run says what differs from the defaults, and gives the same settings") {
  CHECK(options_of(parsed("")) == " --task sort");
  CHECK(options_of(parsed("--task copy --steps 30")) == " --task copy --steps 30");
  for (const char* options :
       {" --task recall --no-filler --layers 3 --heads 4 --no-bias --lr 0.01 --steps 77",
        " --task add --heads 4 --kv-heads 2 --warmup 3 --steps 100",
        " --task induction --min-lr 0 --seed 12345678901",
        " --task copy --optimizer sgd --nesterov --momentum 0.5 --lr 0.2",
        " --task copy --optimizer sgd --weight-decay 0.1", " --text x.txt --optimizer adam --lr 0.01",
        " --task copy --positions alibi --window 16 --softcap 0.1 --sinks",
        " --text x.txt --mlp swiglu --positions learned --dropout 0.25 --checkpoint 2"}) {
    CAPTURE(options);
    const RunConfig config = parsed(options);
    const std::string said = options_of(config);
    CAPTURE(said);
    CHECK(to_json(parsed(said)) == to_json(config));
  }
  CHECK(options_of(parsed("--kv-heads 1"), {"kv-heads"}) == " --task sort");
}

TEST_CASE("report: the options that a command was given are said again") {
  CLI::App app;
  int seq = 1, heads = 2;
  bool causal = false, sweep = false;
  std::string out, name;
  app.add_option("--seq", seq);
  app.add_option("--heads", heads);
  app.add_flag("--causal", causal);
  app.add_flag("--sweep", sweep);
  app.add_option("--out", out);
  app.add_option("-n,--name", name);
  app.parse("--name 'my lab' --causal --out here --seq 64", /*program_name_included=*/false);
  CHECK(given_options(app, {"out"}) == " --seq 64 --causal --name 'my lab'");
}

TEST_CASE("report: a word of a command is quoted where a shell would not take it as it is") {
  CHECK(shell_quoted("runs/a-b_c.txt") == "runs/a-b_c.txt");
  CHECK(shell_quoted("my text") == "'my text'");
  CHECK(shell_quoted("it's $HOME") == "'it'\\''s $HOME'");
  CHECK(shell_quoted("") == "''");
}

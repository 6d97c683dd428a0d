#include "tilegrad/train/app/grid.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/message_of.h"
#include "tests/train/run_program.h"
#include "tilegrad/train/measure/spread.h"
#include "tilegrad/train/report/numbers.h"
#include "tilegrad/train/report/run_charts.h"
#include "tilegrad/train/report/run_groups.h"
#include "tilegrad/train/report/run_page.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

std::vector<Variant> grid_of(const std::string& options, const GridOptions& grid) {
  CLI::App app;
  RunOptions run(app);
  app.parse(options, /*program_name_included=*/false);
  return make_grid(app, grid, [](RunOptions& each) { return each.resolve_any(); });
}

LoadedRun run_with(const std::string& name, double lr, std::uint64_t seed, double loss) {
  LoadedRun run = {.name = name, .config = tiny_config()};
  run.config.lr = lr;
  run.config.seed = seed;
  run.metrics.steps = {{.step = 1, .loss = 2 * loss}, {.step = 2, .loss = loss}};
  run.metrics.evaluations = {{.step = 2, .val_loss = loss, .accuracy = 0.5}};
  run.summary = summary_of(run.metrics);
  return run;
}

// Two learning rates with three seeds each.
std::vector<LoadedRun> six_runs(double second_loss) {
  std::vector<LoadedRun> runs;
  for (const std::uint64_t seed : {1, 2, 3}) {
    const double noise = 0.01 * static_cast<double>(seed);
    runs.push_back(run_with(fmt::format("lr=1,seed={}", seed), 1, seed, 1 + noise));
    runs.push_back(run_with(fmt::format("lr=2,seed={}", seed), 2, seed, second_loss + noise));
  }
  return runs;
}

}  // namespace

TEST_CASE("spread: mean and deviation, and what chance leaves undecided") {
  const Spread s = spread_of(std::vector<double>{1, 2, std::nan(""), 3});
  CHECK(s.count == 3);
  CHECK(s.mean == doctest::Approx(2));
  CHECK(s.deviation == doctest::Approx(1));
  CHECK(s.lowest == 1);
  CHECK(s.highest == 3);
  CHECK(std::isnan(spread_of(std::vector<double>{}).mean));

  const auto differ = [](const std::vector<double>& a, const std::vector<double>& b) {
    return distinguishable(spread_of(a), spread_of(b));
  };
  CHECK(differ({1.0, 1.1, 1.2}, {2.0, 2.1, 2.2}));
  // Welch's t is 2.21 with 3.4 degrees of freedom, and chance reaches 3.18 with 3.
  CHECK_FALSE(differ({1.0, 1.1, 1.2}, {1.2, 1.3, 1.5}));
  CHECK_FALSE(differ({1.0, 1.1, 1.2}, {1.1, 1.2, 1.3}));
  CHECK_FALSE(differ({1}, {2}));
  CHECK_FALSE(differ({1, 1}, {1, 1}));
  CHECK(differ({1, 1}, {2, 2}));
}

TEST_CASE("numbers: digits as many as are meaningful, and one way to write a percentage") {
  CHECK(format_percent(0.973) == "97.3 %");
  CHECK(format_percent(1) == "100.0 %");
  CHECK(format_percent(0.99999) == "99.9 %");
  CHECK(format_percent(0.00001) == "0.1 %");
  CHECK(format_percent(0.0) == "0.0 %");
  CHECK(format_spread(spread_of(std::vector<double>{1.0, 1.1, 1.2})) == "1.10 ± 0.10");
  CHECK(format_spread(spread_of(std::vector<double>{1.00001, 1.00002})) == "1.0000 ± 0.0000");
  CHECK(format_spread(spread_of(std::vector<double>{150, 250})) == "200 ± 71");
  CHECK(format_spread(spread_of(std::vector<double>{1.5})) == "1.5000");
  CHECK(describe_loss(std::log(2.0), true) == "0.6931 nats (1.000 bits per byte)");
  CHECK(describe_loss(1, false) == "1.0000");
}

TEST_CASE("grid: every combination, with what follows from each value") {
  const auto grid =
      grid_of("--task copy --steps 20", {.seeds = {1, 2}, .vary = {"lr=0.1,0.2", "positions=rope,alibi"}});
  REQUIRE(grid.size() == 8);
  CHECK(grid[0].name == "lr=0.1,positions=rope,seed=1");
  CHECK(grid[7].name == "lr=0.2,positions=alibi,seed=2");
  CHECK(grid[7].config.seed == 2);
  CHECK(grid[7].config.steps == 20);
  CHECK(grid[7].config.lr == 0.2);
  CHECK(grid[7].config.min_lr == doctest::Approx(0.02));  // a tenth of lr, as it was not given
  CHECK(grid[7].config.model.attention.positions == nn::PositionEncoding::alibi);
  CHECK(grid_of("--no-tie", {.vary = {"bias=true,false"}})[0].config.model.bias);
  CHECK_FALSE(grid_of("--no-tie", {.vary = {"bias=true,false"}})[0].config.model.tie);
}

TEST_CASE("grid: an optimizer has the rate that follows from it, unless one is given") {
  const auto grid = grid_of("--task sort", {.vary = {"optimizer=adamw,sgd"}});
  REQUIRE(grid.size() == 2);
  CHECK(grid[0].config.optimizer.kind == OptimizerKind::adamw);
  CHECK(grid[0].config.lr == 0.001);
  CHECK(grid[1].config.optimizer.kind == OptimizerKind::sgd);
  CHECK(grid[1].config.lr == kSgdLearningRate);
  CHECK(grid_of("--task sort --lr 0.02", {.vary = {"optimizer=adamw,sgd"}})[1].config.lr == 0.02);
  CHECK(test::message_of([] { grid_of("--beta2 0.9", {.vary = {"optimizer=sgd"}}); }) ==
        "beta2: has no effect with --optimizer sgd");
}

TEST_CASE("grid: a setting given for all belongs to the runs in which it has an effect") {
  const auto grid = grid_of("--task sort --momentum 0.7 --beta2 0.9", {.vary = {"optimizer=sgd,adamw"}});
  REQUIRE(grid.size() == 2);
  const OptimizerSettings &sgd = grid[0].config.optimizer, &adamw = grid[1].config.optimizer;
  CHECK(sgd.momentum == 0.7);
  CHECK(sgd.beta2 == 0.95);  // as if it had not been given
  CHECK(adamw.beta2 == 0.9);
  CHECK(adamw.momentum == RunConfig().optimizer.momentum);
  const auto schedules = grid_of("--min-lr 0.0001", {.vary = {"schedule=constant,cosine"}});
  CHECK(schedules[1].config.min_lr == 0.0001);
}

TEST_CASE("grid: a setting that has no effect in any run is an error, and a varied one in some is") {
  const auto message = [](const std::string& options, const std::string& vary, const std::string& more) {
    return test::message_of([&] { grid_of(options, {.vary = {vary, more}}); });
  };
  CHECK(message("--momentum 0.7", "optimizer=adam,adamw", "lr=0.1,0.2") ==
        "momentum: has no effect with --optimizer adamw");
  CHECK(message("", "optimizer=sgd,adamw", "momentum=0,0.7") ==
        "momentum: has no effect with --optimizer adamw");
  CHECK(message("--momentum 0.7", "optimizer=sgd,adamw", "lr=0.1,0.2").empty());
}

TEST_CASE("grid: settings and values that are none are errors of one line") {
  const auto refused = [](const std::string& vary, const std::string& line) {
    check_error({"compare", "--vary", vary, "--out", "unused", "--log-level", "off"}, kFailure, line);
  };
  refused("lr", "vary: `lr` is not a setting with its values");
  refused("lrr=1,2", "vary: `lrr` is not a setting that can be varied");
  refused("out=a,b", "vary: `out` is not a setting that can be varied");
  refused("seed=1,2", "vary: --seeds varies the seed");
  refused("lr=1,,2", "has an empty value");
  refused("lr=high", "lr=high: ");
  refused("lr=-1", "lr: is -1, must be positive");
  refused("lr=1,1", "the variant lr=1 is named twice");
  check_error({"compare", "--vary", "lr=1", "--vary", "lr=2"}, kFailure, "vary: lr is given twice");
  check_error({"compare", "--seeds", "1,2", "--seed", "3"}, kFailure,
              "compare: --seed has no effect with --seeds");
}

TEST_CASE("groups: runs that differ in nothing but the seed, whatever their names") {
  const auto runs = six_runs(2);
  const auto groups = groups_of(runs);
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].name == "lr=1");
  CHECK(groups[1].runs.size() == 3);
  CHECK(has_repeats(groups));

  std::vector<LoadedRun> renamed = runs;
  for (std::size_t i = 0; i < renamed.size(); ++i) renamed[i].name = fmt::format("run-{}", i);
  CHECK(groups_of(renamed)[1].name == "lr=2.0");
  const std::vector<LoadedRun> two = {runs[0], runs[1]}, twice = {runs[0], runs[0]};
  CHECK_FALSE(has_repeats(groups_of(two)));
  CHECK_FALSE(has_repeats(groups_of(twice)));
}

TEST_CASE(
    "groups: a headline names the best only if chance does not explain it, and never of a single seed") {
  CHECK(run_page({.runs = six_runs(2)})
            .finding.starts_with("Lowest validation loss: lr=1 (1.020 ± 0.010 over 3 seeds)."));
  CHECK(run_page({.runs = six_runs(1.005)})
            .finding.starts_with("Not distinguishable in validation loss; the lowest mean is 1.020"));
  const auto two = six_runs(2);
  CHECK(run_page({.runs = {two[0], two[1]}})
            .finding.starts_with(
                "Validation loss from 1.0100 (lr=1,seed=1) to 2.0100 (lr=2,seed=1), with one seed each, "
                "which ranks nothing."));
}

TEST_CASE("groups: every column of a page of runs is explained on it") {
  const Report page = run_page({.runs = six_runs(2)});
  const auto meanings = std::find_if(page.tables.begin(), page.tables.end(), [](const Table& table) {
    return table.title == "What the columns mean";
  });
  REQUIRE(meanings != page.tables.end());
  for (const std::size_t table : {0, 1}) {
    for (const std::string& column : page.tables[table].columns) {
      CAPTURE(column);
      CHECK((column.empty() || std::any_of(meanings->rows.begin(), meanings->rows.end(),
                                           [&](const auto& row) { return row[0] == column; })));
    }
  }
}

TEST_CASE(
    "groups: tables and charts show the mean of the seeds, and from the lowest to the highest of them") {
  const auto runs = six_runs(2);
  const Report page = run_page({.runs = runs});
  CHECK(page.tables[0].rows[0][2] == "1.020 ± 0.010");
  CHECK(page.tables[1].rows.size() == 6);
  const Chart& loss = page.charts[0];
  REQUIRE(loss.series.size() == 2);
  CHECK(loss.series[0].name == "lr=1");
  CHECK(loss.series[0].points[1].second == doctest::Approx(1.02));
  CHECK(loss.series[0].spread[1][1] == doctest::Approx(1.01));
  CHECK(loss.series[0].spread[1][2] == doctest::Approx(1.03));
  const auto last = std::find_if(page.charts.begin(), page.charts.end(),
                                 [](const Chart& chart) { return chart.title == "Last validation loss"; });
  REQUIRE(last != page.charts.end());
  CHECK(last->series[0].spread[1][2] == doctest::Approx(2.03));
}

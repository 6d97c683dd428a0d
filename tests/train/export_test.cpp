#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/train/run_program.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/event_file.h"
#include "tilegrad/train/report/svg.h"
#include "tilegrad/train/run/metrics.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

std::ptrdiff_t lines_in(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

// How often a word stands in a text.
int times(const std::string& text, const std::string& word) {
  int count = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("metrics: steps and evaluations are told apart by a key, and files without it still load") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "run")));
  const std::string file = folder / "run/metrics.jsonl";
  std::string old;
  int steps = 0, evaluations = 0;
  for (auto line : timeless_metrics(folder / "run")) {
    steps += line.at("kind") == "step";
    evaluations += line.at("kind") == "evaluation";
    line.erase("kind");
    old += line.dump() + "\n";
  }
  CHECK(steps == 12);
  CHECK(evaluations == 3);
  const Metrics now = read_metrics(file);
  write_file(file, old);
  const Metrics before = read_metrics(file);
  CHECK(before.steps.size() == now.steps.size());
  REQUIRE(before.evaluations.size() == now.evaluations.size());
  CHECK(before.evaluations.back().val_loss == now.evaluations.back().val_loss);
}

TEST_CASE("export: a single run leaves its curves, and report writes tables, pictures and events") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "run")));
  const std::string own = read_file(folder / "run/curves.csv");
  CHECK(own.starts_with("step,loss,loss val_loss\n1,"));
  CHECK(lines_in(own) == 1 + 12);

  const Output output =
      run_program({"report", folder / "run", "--out", folder / "page.html", "--csv", folder / "runs.csv",
                   "--json", folder / "runs.json", "--curves", folder / "curves.csv", "--svg", folder / "svg",
                   "--tensorboard", folder / "tb"});
  check_success(output);
  const std::string csv = read_file(folder / "runs.csv");
  CHECK(csv.starts_with("variant,group,seed,"));
  CHECK(lines_in(csv) == 2);
  const auto rows = nlohmann::json::parse(read_file(folder / "runs.json"));
  CHECK(rows[0]["val_loss"] == read_metrics(folder / "run/metrics.jsonl").evaluations.back().val_loss);
  CHECK(read_file(folder / "curves.csv").starts_with("step,run,run val_loss\n"));
  CHECK(read_file(folder / "svg/training_loss.svg").ends_with("</svg>\n"));
  CHECK(std::filesystem::exists(folder / "svg/peak_of_tracked_memory.svg"));
  CHECK(std::filesystem::exists(folder / "tb/run/events.out.tfevents.0000000000.tilegrad"));
}

TEST_CASE("export: --png hands every picture to rsvg-convert, and says what is missing or failed") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "run")));
  const auto report_with = [&](const std::string& script) {
    const std::string tool = folder / "bin/rsvg-convert";
    make_folder(folder / "bin");
    std::filesystem::remove(tool);
    if (!script.empty()) {
      write_file(tool, "#!/bin/sh\n" + script + "\n");
      std::filesystem::permissions(tool, std::filesystem::perms::owner_all);
    }
    const std::string before = std::getenv("PATH");
    ::setenv("PATH", (folder / "bin").c_str(), 1);
    Output output =
        run_program({"report", folder / "run", "--out", folder / "page.html", "--png", folder / "png"});
    ::setenv("PATH", before.c_str(), 1);
    return output;
  };
  check_error(report_with(""), kFailure, "png: rsvg-convert is not installed (Debian: librsvg2-bin)");
  CHECK_FALSE(std::filesystem::exists(folder / "page.html"));
  // Copies its last argument to the file after --output.
  const std::string copy =
      "while [ $# -gt 1 ]; do [ $1 = --output ] && out=$2; shift; done; /bin/cat $1 > $out";
  check_success(report_with(copy));
  CHECK(read_file(folder / "png/training_loss.png").starts_with("<svg"));
  CHECK_FALSE(std::filesystem::exists(folder / "png/training_loss.png.svg"));
  const Output failed = report_with("exit 3");
  CHECK(failed.code == kFailure);
  CHECK(failed.err.find(".png with exit code 3\n") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(folder / "png/training_loss.png.svg"));
}

TEST_CASE("export: a name with a comma is one cell") {
  LoadedRun run = {.name = "lr=1,seed=2", .config = tiny_config()};
  run.metrics.steps = {{.step = 1, .loss = 0.5}};
  CHECK(curves_csv({run}).starts_with("step,\"lr=1,seed=2\",\"lr=1,seed=2 val_loss\"\n1,0.5,\n"));
  CHECK(results_csv({run}).find("\n\"lr=1,seed=2\",") != std::string::npos);
}

TEST_CASE("export: the checksum of event files is that of the standard, masked") {
  // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 8A9136AA.
  const std::uint32_t crc = 0x8A9136AA;
  CHECK(masked_crc32c(std::string(32, '\0')) == (crc >> 15 | crc << 17) + 0xA282EAD8);
}

TEST_CASE("export: a resumed run adds a file of events, and a new one forgets the old") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  check_success(run_program(tiny_training(run, {"--tensorboard", "--stop-after", "4"})));
  check_success(run_program({"train", "--resume", run, "--tensorboard", "--quiet"}));
  CHECK(std::filesystem::exists(run + "/tensorboard/events.out.tfevents.0000000000.tilegrad"));
  CHECK(std::filesystem::exists(run + "/tensorboard/events.out.tfevents.0000000004.tilegrad"));
  check_success(run_program(tiny_training(run, {"--overwrite"})));
  CHECK_FALSE(std::filesystem::exists(run + "/tensorboard"));
}

TEST_CASE("svg: a picture of each kind of chart shows all of its series, and names as text") {
  const Chart lines = {.title = "Loss <1>",
                       .x = {.title = "step"},
                       .y = {.title = "loss", .logarithmic = true},
                       .series = {{.name = "a & b",
                                   .points = {{1, 1}, {2, 0.1}, {3, 0}, {4, 0.01}},
                                   .spread = {{1, 0.9, 1.1}, {2, 0.05, 0.2}}},
                                  {.name = "c", .points = {{1, 2}, {4, 1}}}}};
  const std::string svg = chart_svg(lines);
  CHECK(svg.find("Loss &lt;1&gt;") != std::string::npos);
  CHECK(svg.find("a &amp; b") != std::string::npos);
  CHECK(times(svg, "fill=\"none\" stroke=") == 2);
  CHECK(times(svg, "<polygon") == 1);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf") == std::string::npos);

  const Chart bars = {.title = "Time",
                      .kind = Chart::Kind::bars,
                      .y = {.title = "ms"},
                      .series = {{.name = "ms", .points = {{0, 3}, {1, 4}}, .spread = {{0, 2, 5}}}},
                      .categories = {"x", "y"}};
  CHECK(times(chart_svg(bars), "<rect") == 1 + 2);
  CHECK(chart_svg({.title = "nothing"}).find("no data") != std::string::npos);
}

TEST_CASE("svg: twelve series have twelve looks") {
  Chart chart = {.title = "twelve"};
  for (int i = 0; i < 12; ++i)
    chart.series.push_back({.name = std::to_string(i), .points = {{0, i}, {1, i}}});
  const std::string svg = chart_svg(chart);
  std::vector<std::string> looks;
  const std::string begin = "fill=\"none\" stroke=";
  for (auto at = svg.find(begin); at != std::string::npos; at = svg.find(begin, at + 1)) {
    looks.push_back(svg.substr(at, svg.find("/>", at) - at));
  }
  REQUIRE(looks.size() == 12);
  std::sort(looks.begin(), looks.end());
  CHECK(std::unique(looks.begin(), looks.end()) == looks.end());
}

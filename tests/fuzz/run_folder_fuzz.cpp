// The folder of a run, as a report and a resume read it. The input is the content of its files, one after the other;
// a byte 0 ends each of them.
#include <array>
#include <nlohmann/json.hpp>

#include "tests/fuzz/target.h"
#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/page.h"
#include "tilegrad/train/report/run_page.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/run_folder.h"

void tilegrad::fuzz::fuzz(std::string_view input) {
  constexpr std::array<std::string_view, 6> kFiles = {"metrics.jsonl", "memory.jsonl", "environment.json",
                                                      "ops.json",      "compare.json", "config.json"};
  const std::filesystem::path folder = scratch_folder() / "run";
  make_folder(folder);
  write_file(folder / "config.json", json_text(to_json(train::RunConfig())));
  for (const std::string_view name : kFiles) {
    if (name != "config.json") std::filesystem::remove(folder / name);
    if (input.empty()) continue;
    const auto end = input.find('\0');
    write_file(folder / name, input.substr(0, end));
    input = end == std::string_view::npos ? std::string_view() : input.substr(end + 1);
  }
  const train::LoadedRuns all = train::load_runs({folder});
  train::write_report(folder / "report.html", train::run_page(all));
  format_table(train::results_table(all.runs));
  train::curves_csv(all.runs);
  train::keep_metrics_until(folder / "metrics.jsonl", 5);
  std::vector<std::string> warnings;
  train::read_metrics(folder / "metrics.jsonl", warnings);
  expect(warnings.empty(), "metrics that were mended are still damaged");
}

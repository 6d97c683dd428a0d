#include "tilegrad/train/labs/publish.h"

#include "tilegrad/base/file.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/labs/lab_profile.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/report/column_meanings.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

// A line a column, the sentences below each other.
std::string meanings(const std::vector<Table>& tables) {
  std::string text = "what the columns mean\n";
  for (const auto& row : column_meanings(tables).rows) text += fmt::format("  {:<30}  {}\n", row[0], row[1]);
  return text;
}

}  // namespace

Timing timing_of(const std::vector<double>& ms) {
  const Quartiles q = quartiles(ms);
  return {.all_ms = ms, .ms = q.median, .spread_ms = q.third - q.first};
}

void announce(const Console& console, const std::string& plan) { console.out << plan << "\n" << std::flush; }

void publish(const LabOptions& options, const LabResult& result, const Console& console) {
  const std::filesystem::path folder = options.out;
  const Environment environment = current_environment(options.command);
  OrderedJson configuration = result.configuration;
  configuration["threads"] = kernels::threads();
  Report report = result.report;
  for (const auto& [key, value] : configuration.items()) report.facts.emplace_back(key, text_of(value));
  for (auto& fact : facts_of(environment)) report.facts.push_back(std::move(fact));
  for (Table& table : profile_tables(options)) report.tables.push_back(std::move(table));
  const std::vector<Table> printed = report.tables;
  report.tables.push_back(column_meanings(printed));
  const OrderedJson json = {{"configuration", configuration},
                            {"rows", result.rows},
                            {"details", result.details},
                            {"finding", result.report.finding}};
  write_file(folder / (result.name + ".json"), json.dump(2) + "\n");
  write_file(folder / (result.name + ".csv"), csv_of(result.rows));
  write_environment(RunFolder(folder).environment_file(), environment);
  write_report(folder / "report.html", report);
  for (const Table& table : printed) console.out << format_table(table) << "\n";
  if (options.explain) console.out << meanings(printed) << "\n";
  console.out << result.report.finding << "\n" << fmt::format("results: {}\n", options.out) << std::flush;
}

}  // namespace tilegrad::train

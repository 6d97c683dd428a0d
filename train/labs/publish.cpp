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

OrderedJson json_of(const std::vector<Why>& whys) {
  OrderedJson list = OrderedJson::array();
  for (const Why& why : whys) list.push_back({{"result", why.result}, {"why", why.reason}});
  return list;
}

// A table of sentences is too wide for a terminal.
std::string lines_of(const std::vector<Why>& whys) {
  std::string text;
  for (const Why& why : whys) text += fmt::format("{}: {}\n", why.result, why.reason);
  return text;
}

}  // namespace

Timing timing_of(const std::vector<double>& ms, int rounds) {
  const Quartiles q = quartiles(ms);
  Timing timing = {.ms = q.median, .spread_ms = q.third - q.first};
  const auto length = std::ssize(ms) / rounds;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = ms.begin() + round * length;
    timing.round_ms.push_back(median({begin, begin + length}));
  }
  return timing;
}

Verdict verdict_on(const Timing& a, const Timing& b) {
  return sequential_sign_test(a.round_ms, b.round_ms, kRoundLooks);
}

void announce(const Console& console, const std::string& plan) { console.out << plan << "\n" << std::flush; }

void publish(const LabOptions& options, const LabResult& result, const Console& console) {
  const std::filesystem::path folder = options.out;
  const Environment environment = current_environment(options.command);
  OrderedJson configuration = result.configuration;
  configuration["threads"] = kernels::threads();
  const std::optional<double> others = options.load ? options.load->share_of_others() : std::nullopt;
  const std::string busy = busy_note(others);
  Report report = result.report;
  for (const auto& [key, value] : configuration.items()) {
    if (!value.is_null()) report.facts.emplace_back(key, text_of(value));
  }
  if (others)
    report.facts.emplace_back("other programs took",
                              fmt::format("{:.0f} % of the processors", 100 * *others));
  for (auto& fact : facts_of(environment)) report.facts.push_back(std::move(fact));
  for (Table& table : profile_tables(options)) report.tables.push_back(std::move(table));
  const std::vector<Table> printed = report.tables;
  if (!result.whys.empty()) report.tables.push_back(table_of(result.whys));
  report.tables.push_back(column_meanings(printed));
  const OrderedJson json = {{"configuration", configuration},     {"rows", result.rows},
                            {"details", result.details},          {"whys", json_of(result.whys)},
                            {"share_of_others", or_null(others)}, {"finding", result.report.finding}};
  write_file(folder / (result.name + ".json"), json.dump(2) + "\n");
  write_file(folder / (result.name + ".csv"), csv_of(result.rows));
  write_environment(RunFolder(folder).environment_file(), environment);
  write_report(folder / "report.html", report);
  for (const Table& table : printed) console.out << format_table(table) << "\n";
  if (options.explain) console.out << meanings(printed) << "\n";
  console.out << lines_of(result.whys);
  if (!busy.empty()) console.out << busy << "\n";
  console.out << result.report.finding << "\n" << fmt::format("results: {}\n", options.out) << std::flush;
}

}  // namespace tilegrad::train

#include "tilegrad/train/labs/lab.h"

#include <fmt/format.h>

#include <chrono>
#include <map>

#include "tilegrad/base/process.h"
#include "tilegrad/base/file.h"
#include "tilegrad/base/interrupt.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/labs/lab_profile.h"
#include "tilegrad/train/labs/probes.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/report/table.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

const std::map<std::string, Probe>& probes() {
  static const std::map<std::string, Probe> all = {
      {"stages", probe_stages},        {"schedule", probe_schedule}, {"attention", probe_attention},
      {"accuracy", probe_accuracy},    {"machine", probe_machine},   {"training", probe_training},
      {"decoding", probe_decoding},    {"sharing", probe_sharing},   {"learning", probe_learning},
      {"conversion", probe_conversion}};
  return all;
}

fs::path task_file(const fs::path& folder) { return folder / "task.json"; }
fs::path result_file(const fs::path& folder) { return folder / "result.json"; }

Json read_json(const fs::path& file) {
  Json json = Json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  check(!json.is_discarded(), "{}: is not JSON", file.string());
  return json;
}

std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

void join_lists(Json& to, const Json& from) {
  for (const auto& [key, value] : from.items()) {
    if (value.is_array()) to[key].insert(to[key].end(), value.begin(), value.end());
  }
}

}  // namespace

Json measure(const Json& task) {
  const auto name = task.at("probe").get<std::string>();
  const auto found = probes().find(name);
  check(found != probes().end(), "lab: there is no measurement `{}`", name);
  return found->second(task);
}

Json measure_apart(const LabOptions& options, const Json& task) {
  const fs::path folder = options.out;
  make_folder(folder);
  write_file(task_file(folder), with_profile(options, task).dump(2) + "\n");
  const InterruptScope interrupt;
  const ChildResult child = run_child(options.program, {"lab", "measure", folder.string()});
  if (InterruptScope::requested()) throw Interrupted("lab: interrupted");
  check(child.exit_code == kSuccess, "lab: the measurement `{}` failed with exit code {}",
        task.at("probe").get<std::string>(), child.exit_code);
  Json result = read_json(result_file(folder));
  result["peak_rss"] = child.peak_rss;
  fs::remove(task_file(folder));
  fs::remove(result_file(folder));
  return result;
}

void answer(const fs::path& folder) {
  write_file(result_file(folder), measure(read_json(task_file(folder))).dump() + "\n");
}

std::vector<Json> measure_by_turns(const LabOptions& options, const std::vector<Json>& tasks) {
  std::vector<Json> results(tasks.size());
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const Json result = measure_apart(options, tasks[i]);
      if (round == 0) results[i] = result;
      if (round > 0) join_lists(results[i], result);
    }
  }
  return results;
}

std::vector<double> time_calls(const Json& task, const std::string& what, const std::function<void()>& f) {
  using Clock = std::chrono::steady_clock;
  const auto repeats = task.at("repeats").get<Index>();
  LabProfile profile(task, what);
  std::vector<double> ms;
  do {
    profile.begin();
    const auto start = Clock::now();
    f();
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    profile.end();
    profile.write();  // each time, because an interrupt ends this process
  } while (std::ssize(ms) < repeats);
  return ms;
}

Tensor random_tokens(Index batch, Index time, RandomKey key) {
  RandomStream random(key);
  Tensor ids = Tensor::empty({batch, time}, Dtype::i32);
  for (std::int32_t& id : ids.mut<std::int32_t>()) id = static_cast<std::int32_t>(random.below(kVocabulary));
  return ids;
}

Timing timing_of(const Json& list) {
  const Quartiles ms = quartiles(list.get<std::vector<double>>());
  return {.ms = ms.median, .spread_ms = ms.third - ms.first};
}

std::string csv_of(const Json& rows) {
  std::string csv;
  for (const Json& row : rows) {
    std::string heading, line;
    for (const auto& [key, value] : row.items()) {
      heading += (heading.empty() ? "" : ",") + key;
      line += (line.empty() ? "" : ",") + text_of(value);
    }
    if (csv.empty()) csv = heading + "\n";
    csv += line + "\n";
  }
  return csv;
}

void publish(const LabOptions& options, const LabResult& result, const Console& console) {
  const fs::path folder = options.out;
  const Environment environment = current_environment(options.command);
  Json configuration = result.configuration;
  configuration["threads"] = kernels::threads();
  Report report = result.report;
  for (const auto& [key, value] : configuration.items()) report.facts.emplace_back(key, text_of(value));
  for (auto& fact : facts_of(environment)) report.facts.push_back(std::move(fact));
  for (Table& table : profile_tables(options)) report.tables.push_back(std::move(table));
  const Json json = {{"configuration", configuration},
                     {"rows", result.rows},
                     {"details", result.details},
                     {"finding", result.report.finding}};
  write_file(folder / (result.name + ".json"), json.dump(2) + "\n");
  write_file(folder / (result.name + ".csv"), csv_of(result.rows));
  write_environment(RunFolder(folder).environment_file(), environment);
  write_report(folder / "report.html", report);
  for (const Table& table : report.tables) console.out << format_table(table) << "\n";
  console.out << result.report.finding << "\n" << fmt::format("results: {}\n", options.out) << std::flush;
}

}  // namespace tilegrad::train

#include "tilegrad/train/app/compare_runs.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "tilegrad/base/file.h"
#include "tilegrad/base/interrupt.h"
#include "tilegrad/base/json.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/base/process.h"
#include "tilegrad/train/app/comparison_folder.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/numbers.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/report/run_groups.h"
#include "tilegrad/train/report/run_page.h"
#include "tilegrad/train/report/table.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/run_command_line.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

// Settings that the variants decide are left to them, and shared heads start pooled unless stated otherwise.
std::string comparison_command(const RunConfig& base, const ComparisonOptions& options) {
  if (options.variants.empty()) return "tilegrad compare" + options_of(base) + options.grid_options;
  std::string command = "tilegrad compare" + options_of(base, {"attention", "kv-heads", "kv-init"});
  command += options.grid_options + fmt::format(" --variants {}", fmt::join(options.variants, ","));
  if (options.gqa_heads > 0) command += fmt::format(" --gqa-heads {}", options.gqa_heads);
  if (base.kv_init != KvInit::pooled) command += fmt::format(" --kv-init {}", name_of(base.kv_init));
  return command;
}

// Checks every run before the first one trains, and fills in the facts about the texts.
std::vector<Variant> checked_variants(const RunConfig& base, const ComparisonOptions& options) {
  std::vector<Variant> variants = make_variants(base, options);
  for (Variant& variant : variants) {
    RunConfig& c = variant.config;
    c.validate();
    std::error_code unreadable;  // which reading the text reports
    const fs::file_status text = fs::status(c.text, unreadable);
    check(!c.is_text() || !fs::exists(text) || fs::is_regular_file(text),
          "compare: {}: is not a regular file, and each variant reads the text again", c.text);
    c.model_for(make_dataset(c)->vocabulary());
  }
  return variants;
}

// The peaks that an earlier call measured for the runs that are kept.
std::map<std::string, Index> known_peaks(const fs::path& folder) {
  std::map<std::string, Index> peaks;
  std::error_code unknown;
  if (!fs::exists(folder / "compare.json", unknown)) return peaks;
  const auto rows =
      nlohmann::json::parse(read_file(folder / "compare.json"), nullptr, /*allow_exceptions=*/false);
  for (const nlohmann::json& row : rows) {
    if (row.is_object() && row.contains("peak_rss") && row["peak_rss"].is_number_integer()) {
      peaks[row.value("variant", "")] = row["peak_rss"].get<Index>();
    }
  }
  return peaks;
}

// Trains the runs of a comparison, several at a time if that is asked for.
class Crew {
 public:
  Crew(const std::vector<Variant>& variants, const ComparisonOptions& options, const Console& console)
      : variants_(variants), options_(options), console_(console), done_(variants.size()) {
    for (const Variant& variant : variants) longest_ = std::max(longest_, variant.name.size());
  }

  // In the order of the variants; after an interrupt, without those that have not begun.
  std::vector<LoadedRun> run(const std::map<std::string, Index>& known_peaks) {
    const auto work = [&] {
      for (std::size_t i; !InterruptScope::requested() && (i = next_++) < variants_.size();) {
        done_[i] = train(variants_[i], known_peaks);
        if (done_[i]) report(*done_[i]);
      }
    };
    std::vector<std::future<void>> workers;
    for (Index i = 0; i < options_.jobs; ++i) workers.push_back(std::async(std::launch::async, work));
    for (std::future<void>& worker : workers) worker.wait();
    for (std::future<void>& worker : workers) worker.get();  // throws what it threw
    std::vector<LoadedRun> runs;
    for (std::optional<LoadedRun>& run : done_) {
      if (run) runs.push_back(std::move(*run));
    }
    return runs;
  }

 private:
  bool alone() const { return options_.jobs == 1; }
  std::optional<LoadedRun> train(const Variant& variant,
                                 const std::map<std::string, Index>& known_peaks) const;
  std::vector<std::string> arguments_of(const Variant& variant, Standing standing) const;
  void report(const LoadedRun& run);

  // What the process of a variant is to do; it writes the config.json of the run itself.
  static fs::path task_file(const Variant& variant) {
    return fs::path(variant.config.out).parent_path() / (variant.name + ".json");
  }

  // The threads of one of several processes: together they have as many as a single one would.
  Index threads_of(const Variant& variant) const {
    if (alone() || variant.config.threads > 0) return variant.config.threads;
    return std::max<Index>(1, Index{std::thread::hardware_concurrency()} / options_.jobs);
  }

  const std::vector<Variant>& variants_;
  const ComparisonOptions& options_;
  const Console& console_;
  std::size_t longest_ = 0;  // name
  std::atomic<std::size_t> next_ = 0;
  std::vector<std::optional<LoadedRun>> done_;
  std::mutex reporting_;
  std::size_t reported_ = 0;
};

// Lines of progress begin with the name, padded so that they line up.
std::vector<std::string> Crew::arguments_of(const Variant& variant, Standing standing) const {
  std::vector<std::string> arguments = {"train"};
  const auto add = [&](std::initializer_list<std::string> words) {
    arguments.insert(arguments.end(), words.begin(), words.end());
  };
  if (standing == Standing::unfinished) {
    add({"--resume", variant.config.out, "--threads", std::to_string(threads_of(variant))});
  } else {
    add({"--repeat", task_file(variant).string(), "--out", variant.config.out, "--overwrite"});
  }
  const std::string label = options_.json ? variant.name : fmt::format("{:<{}}", variant.name, longest_);
  add({"--label", label, "--log-level", "warn", "--no-summary"});
  if (options_.quiet || (!alone() && !options_.json)) add({"--quiet"});
  if (options_.json) add({"--json"});
  if (options_.profile) add({"--profile"});
  return arguments;
}

// Nothing if an interrupt came before the run had begun.
std::optional<LoadedRun> Crew::train(const Variant& variant,
                                     const std::map<std::string, Index>& known_peaks) const {
  const Standing standing = options_.overwrite ? Standing::absent : standing_of(variant);
  const auto known = known_peaks.find(variant.name);
  const Index peak_before = standing != Standing::absent && known != known_peaks.end() ? known->second : 0;
  ChildResult process;
  if (standing == Standing::unfinished) {
    process = run_child(options_.program, arguments_of(variant, standing));
  } else if (standing != Standing::finished) {
    RunConfig task = variant.config;
    task.threads = threads_of(variant);
    write_file(task_file(variant), json_text(to_json(task), 2) + "\n");
    process = run_child(options_.program, arguments_of(variant, standing));
    fs::remove(task_file(variant));
  }
  if (process.ended_by_interrupt) {
    const Standing now = standing_of(variant);  // other: what it was to replace is still there
    if (now == Standing::absent || now == Standing::other) return std::nullopt;
    process.exit_code = kInterrupted;
  }
  process.peak_rss = std::max(process.peak_rss, peak_before);
  std::vector<std::string> warnings;
  LoadedRun run = {.name = variant.name, .config = variant.config};
  if (process.exit_code == kSuccess || process.exit_code == kInterrupted) {
    run = load_run(variant.config.out, warnings);
    run.name = variant.name;
  }
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  run.process = process;
  return run;
}

// One line for each run that has ended, where the lines of all steps would be too many.
void Crew::report(const LoadedRun& run) {
  const std::lock_guard lock(reporting_);
  ++reported_;
  if (options_.quiet || options_.json || (alone() && options_.grid.empty())) return;
  const EvaluationLine& last = run.summary.last;
  const std::string result = last.step > 0 ? fmt::format("validation loss {:.4f}, accuracy {}", last.val_loss,
                                                         format_percent(last.accuracy))
                                           : "not evaluated";
  console_.out << fmt::format("[{}/{}] {:<{}}  {}\n", reported_, variants_.size(), run.name, longest_, result)
               << std::flush;
}

void write_results(const fs::path& folder, const std::vector<LoadedRun>& runs,
                   const Environment& environment) {
  write_file(folder / "curves.csv", curves_csv(runs));
  write_file(folder / "compare.json", json_text(results_json(runs), 2) + "\n");
  if (runs.empty()) return;
  write_report(folder / "report.html",
               run_page({.runs = runs, .environments = {{folder.string(), environment}}}));
}

void show_results(const std::vector<LoadedRun>& runs, const fs::path& folder, bool json,
                  const Console& console) {
  if (json) {
    for (const auto& row : results_json(runs)) console.out << json_text(row) << "\n";
    console.out << std::flush;
    return;
  }
  for (const LoadedRun& run : runs) {
    if (run.profile.calls == 0) continue;
    console.out << format_table(profile_table(run.name, run.profile)) << "\n";
  }
  const Table table = results_table(runs);
  console.out << format_table(table.columns, table.rows);
  if (const auto groups = groups_of(runs); has_repeats(groups)) {
    console.out << "\n" << format_table(groups_table(groups)) << "\n" << finding_of_groups(groups) << "\n";
  }
  console.out << fmt::format("results: {}, report: {}\n", folder.string(), (folder / "report.html").string())
              << std::flush;
}

}  // namespace

std::string comparison_folder(const RunConfig& base, const ComparisonOptions& options) {
  if (!holds_results(base.out)) return base.out;
  return folder_to_go_on(base.out, checked_variants(base, options)).string();
}

int run_comparison(const RunConfig& base, const ComparisonOptions& options, const Console& console) {
  const auto variants = checked_variants(base, options);
  const fs::path folder(base.out);
  if (!options.overwrite) check_usable(folder, variants);
  const FolderLock lock(folder);
  const auto peaks = known_peaks(folder);
  if (options.overwrite) fs::remove(folder / "compare.json");  // its variants are about to be replaced
  const Environment environment = current_environment(comparison_command(base, options));
  write_environment(RunFolder(folder).environment_file(), environment);
  const InterruptScope interrupt;
  const std::vector<LoadedRun> runs = Crew(variants, options, console).run(peaks);
  write_results(folder, runs, environment);
  show_results(runs, folder, options.json, console);

  for (const LoadedRun& run : runs) {
    const int code = run.process.exit_code;
    check(code == kSuccess || code == kInterrupted, "compare: {} failed with exit code {}", run.name, code);
  }
  return InterruptScope::requested() ? kInterrupted : kSuccess;
}

}  // namespace tilegrad::train

#include "tilegrad/train/app/compare_runs.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "tilegrad/base/file.h"
#include "tilegrad/base/interrupt.h"
#include "tilegrad/base/json.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/base/process.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/report/run_page.h"
#include "tilegrad/train/report/table.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/run_command_line.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

// Half of the heads, or the largest number below it that divides them and is more than 1; 0 if there is none.
Index default_gqa_heads(Index heads) {
  for (Index kv_heads = heads / 2; kv_heads > 1; --kv_heads) {
    if (heads % kv_heads == 0) return kv_heads;
  }
  return 0;
}

// What the variants decide is theirs, and shared heads start pooled unless it is said.
std::string comparison_command(const RunConfig& base, const ComparisonOptions& options) {
  std::string command = "tilegrad compare" + options_of(base, {"attention", "kv-heads", "kv-init"});
  command += fmt::format(" --variants {}", fmt::join(options.variants, ","));
  if (options.gqa_heads > 0) command += fmt::format(" --gqa-heads {}", options.gqa_heads);
  if (base.kv_init != KvInit::pooled) command += fmt::format(" --kv-init {}", name_of(base.kv_init));
  return command;
}

// "mha-flash-ckpt" -> mha, flash, ckpt
std::vector<std::string> split(const std::string& name) {
  std::vector<std::string> words;
  std::size_t begin = 0;
  for (std::size_t end; (end = name.find('-', begin)) != std::string::npos; begin = end + 1) {
    words.push_back(name.substr(begin, end - begin));
  }
  words.push_back(name.substr(begin));
  return words;
}

Variant make_variant(const RunConfig& base, const std::string& name, Index gqa_heads) {
  Variant variant = {.name = name, .config = base};
  RunConfig& c = variant.config;
  const std::map<std::string, Index> kv_heads = {
      {"mha", base.model.attention.heads}, {"gqa", gqa_heads}, {"mqa", 1}};
  const auto words = split(name);
  const auto heads = kv_heads.find(words[0]);
  std::size_t next = 1;
  const auto take = [&](std::string_view word) {
    const bool found = next < words.size() && words[next] == word;
    if (found) ++next;
    return found;
  };
  c.model.attention.kernel = take("naive") ? AttentionKernel::naive : AttentionKernel::flash;
  const bool mine = c.model.attention.kernel == AttentionKernel::flash && !take("flash") && take("mine");
  const bool checkpointed = take("ckpt"), mine_checkpoint = checkpointed && take("mine");
  check(heads != kv_heads.end() && next == words.size(),
        "compare: `{}` is not a variant: mha, gqa or mqa, then perhaps -naive, -flash or -mine, then perhaps "
        "-ckpt "
        "or -ckpt-mine",
        name);
  check(!base.mine.empty() || !(mine || mine_checkpoint),
        "compare: {} needs --mine DIR, the folder of a course (./dev learn start DIR)", name);
  c.mine = mine ? base.mine : "";
  c.mine_checkpoint = mine_checkpoint ? base.mine : "";
  c.model.attention.kv_heads = heads->second;
  const CheckpointPolicy none;
  if (!checkpointed) c.checkpoint = none;
  if (checkpointed && c.checkpoint == none) c.checkpoint = EveryBlock{};
  c.out = (fs::path(base.out) / name).string();
  return variant;
}

// What the process of a variant is to do; it writes the config.json of the run itself.
fs::path task_file(const Variant& variant) {
  return fs::path(variant.config.out).parent_path() / (variant.name + ".json");
}

// How the process of a variant is started: its lines of progress begin with its name, and stand below each
// other.
std::vector<std::string> arguments_of(const Variant& variant, const ComparisonOptions& options) {
  std::size_t longest = 0;
  for (const std::string& name : options.variants) longest = std::max(longest, name.size());
  const std::string label = options.json ? variant.name : fmt::format("{:<{}}", variant.name, longest);
  std::vector<std::string> arguments = {"train",
                                        "--repeat",
                                        task_file(variant).string(),
                                        "--out",
                                        variant.config.out,
                                        "--overwrite",
                                        "--label",
                                        label,
                                        "--log-level",
                                        "warn",
                                        "--no-summary"};
  if (options.quiet) arguments.push_back("--quiet");
  if (options.json) arguments.push_back("--json");
  if (options.profile) arguments.push_back("--profile");
  return arguments;
}

LoadedRun run_variant(const Variant& variant, const ComparisonOptions& options) {
  write_file(task_file(variant), json_text(to_json(variant.config), 2) + "\n");
  const ChildResult process = run_child(options.program, arguments_of(variant, options));
  fs::remove(task_file(variant));
  std::vector<std::string> warnings;
  LoadedRun run = {.name = variant.name, .config = variant.config};
  if (process.exit_code == kSuccess || process.exit_code == kInterrupted) {
    run = load_run(variant.config.out, warnings);
  }
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  run.process = process;
  return run;
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
  console.out << format_table(table.columns, table.rows)
              << fmt::format("results: {}, report: {}\n", folder.string(), (folder / "report.html").string())
              << std::flush;
}

}  // namespace

std::vector<Variant> make_variants(const RunConfig& base, const ComparisonOptions& options) {
  const Index gqa_heads =
      options.gqa_heads > 0 ? options.gqa_heads : default_gqa_heads(base.model.attention.heads);
  std::vector<Variant> variants;
  for (const std::string& name : options.variants) {
    Variant variant = make_variant(base, name, gqa_heads);
    if (variant.config.model.attention.kv_heads == 0) {
      check(!options.keep_all, "compare: {}: {} heads have no divisor between 1 and themselves", name,
            base.model.attention.heads);
      spdlog::info("{} left out: {} heads have no divisor between 1 and themselves", name,
                   base.model.attention.heads);
      continue;
    }
    const bool twice = std::any_of(variants.begin(), variants.end(),
                                   [&](const Variant& other) { return other.name == name; });
    check(!twice, "compare: the variant {} is named twice", name);
    variants.push_back(std::move(variant));
  }
  return variants;
}

int run_comparison(const RunConfig& base, const ComparisonOptions& options, const Console& console) {
  base.validate();
  std::error_code unreadable;  // which reading the text reports
  const fs::file_status text = fs::status(base.text, unreadable);
  check(!base.is_text() || !fs::exists(text) || fs::is_regular_file(text),
        "compare: {}: is not a regular file, and each variant reads the text again", base.text);
  RunConfig with_facts = base;
  const Index vocabulary = make_dataset(with_facts)->vocabulary();
  const auto variants = make_variants(with_facts, options);
  for (const Variant& variant : variants)
    variant.config.model_for(vocabulary);  // before the first one trains

  const fs::path folder(base.out);
  if (!options.overwrite) check_free(folder);
  const FolderLock lock(folder);
  fs::remove(folder / "compare.json");  // of an earlier comparison, whose variants are no longer meant
  const Environment environment = current_environment(comparison_command(with_facts, options));
  write_environment(RunFolder(folder).environment_file(), environment);
  std::vector<LoadedRun> runs;
  const InterruptScope interrupt;
  for (const Variant& variant : variants) {
    if (InterruptScope::requested()) break;
    runs.push_back(run_variant(variant, options));
  }
  write_results(folder, runs, environment);
  show_results(runs, folder, options.json, console);

  for (const LoadedRun& run : runs) {
    const int code = run.process.exit_code;
    check(code == kSuccess || code == kInterrupted, "compare: {} failed with exit code {}", run.name, code);
  }
  return InterruptScope::requested() ? kInterrupted : kSuccess;
}

}  // namespace tilegrad::train

#include <spdlog/spdlog.h>

#include <memory>
#include <optional>

#include "tilegrad/base/file.h"
#include "tilegrad/base/format.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/app/choice.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/app/threads.h"
#include "tilegrad/train/app/tile_options.h"
#include "tilegrad/train/app/window_option.h"
#include "tilegrad/train/labs/bench_report.h"
#include "tilegrad/train/measure/machine_load.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

struct BenchOptions {
  explicit BenchOptions(CLI::App& app) {
    app.option_defaults()->take_last();
    AttentionProblem& p = bench.problem;
    const auto positive = [&](const std::string& names, Index& field, const std::string& help) {
      return app.add_option(names, field, help)->transform(decimal<Index>())->check(CLI::PositiveNumber);
    };
    auto* attention_option = app.add_option("--attention,--type", attention,
                                            "naive, flash or both; normal is another name for naive")
                                 ->check(CLI::IsMember({"naive", "flash", "both", "normal"}))
                                 ->capture_default_str();
    positive("--batch,--b", p.batch, "sequences")->capture_default_str();
    positive("--heads,--h", p.heads, "query heads")->capture_default_str();
    kv_heads_option = positive("--kv-heads,--gqa-groups", p.kv_heads,
                               "key/value heads; as many as query heads unless given");
    positive("--seq,--q-len", p.tq, "length of the queries; in a sweep, the greatest one")
        ->capture_default_str();
    kv_len_option = positive("--kv-len", p.tk, "length of the keys; that of the queries unless given");
    positive("--head-size,--d", p.head_size, "size of a head")->capture_default_str();
    add_choice<Dtype>(app, "--dtype", p.dtype, "f32 (default) or f64");
    app.add_flag("--causal", p.options.causal, "mask the keys after a query's own position");
    app.add_option("--mask", mask, "random masks each pair with probability 1/2; or none")
        ->check(CLI::IsMember({"random", "none"}));
    add_window(app, window);
    add_tile_sizes(app, p.options.tiles.queries, p.options.tiles.keys);
    app.add_flag("--backward", bench.backward, "time the backward pass as well");
    add_threads(app, threads);
    app.add_option("--seconds", bench.seconds, "seconds to spend on each kernel")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    auto* profile_option = app.add_option(
        "--profile", profile,
        "write a trace for chrome://tracing or Perfetto to this file, and print what each stage took");
    auto* json_flag = app.add_flag("--json", json, "print a JSON object on a line for each kernel and pass");
    auto* sweep_flag = app.add_flag("--sweep", sweep, "find the length from which on flash is faster")
                           ->excludes(attention_option)
                           ->excludes(kv_len_option)
                           ->excludes(json_flag)
                           ->excludes(profile_option);
    app.add_option("--out", out, "CSV file of a sweep")->needs(sweep_flag)->capture_default_str();
  }

  // The case that the options describe.
  BenchCase resolve() const {
    BenchCase c = bench;
    AttentionProblem& p = c.problem;
    if (kv_heads_option->count() == 0) p.kv_heads = p.heads;
    if (kv_len_option->count() == 0) p.tk = p.tq;
    c.random_mask = mask == "random";
    p.options.window = window_of(window, p.options.causal);
    if (attention == "flash") c.kernels = {AttentionKernel::flash};
    if (attention == "naive" || attention == "normal") c.kernels = {AttentionKernel::naive};
    c.skip_naive = attention == "both";
    c.profile = !profile.empty();
    return c;
  }

  BenchCase bench;
  std::string attention = "both", mask = "none", profile, out = "sweep.csv";
  std::vector<Index> window;
  int threads = 0;
  bool json = false, sweep = false;
  CLI::Option *kv_heads_option = nullptr, *kv_len_option = nullptr;
};

std::string describe_machine(const BenchReport& report) {
  const bool remembered = report.peak_gflops > report.measured_peak_gflops;
  const std::string now =
      remembered ? fmt::format(" (remembered; {:.1f} in this run)", report.measured_peak_gflops) : "";
  return fmt::format("{}, threads {}: FMA peak {:.1f} GFLOP/s{}, memory reads {:.1f} GB/s, L2 {}\n",
                     processor_name(), kernels::threads(), report.peak_gflops, now, read_bandwidth(),
                     format_bytes(l2_bytes()));
}

void say_if_busy(const Console& console, std::optional<double> share_of_others) {
  const std::string busy = busy_note(share_of_others);
  if (!busy.empty()) console.out << busy << '\n';
}

void show_progress(const Console& console, const std::string& text) {
  if (console.terminal) console.err << "\r" << text << std::flush;
}

int run_once(const BenchOptions& options, const BenchCase& bench, const Console& console) {
  if (!options.json) {
    console.out << describe(bench.problem) << (bench.random_mask ? ", a random mask\n" : "\n")
                << bench_plan(bench) << std::flush;
  }
  const BenchReport report = run_bench(bench);
  for (const std::string& line : report.skipped) spdlog::warn("{}", line);
  if (options.json) {
    console.out << bench_json_lines(report);
  } else {
    console.out << describe_machine(report) << bench_table(report);
    for (const auto& [kernel, ops] : report.profiles)
      console.out << "\n" << format_table(profile_table(std::string(name_of(kernel)), ops));
    console.out << bench_whys(bench);
    say_if_busy(console, report.share_of_others);
    const std::string finding = bench_finding(report);
    if (!finding.empty()) console.out << finding << '\n';
  }
  console.out << std::flush;
  if (!options.profile.empty()) write_bench_trace(options.profile, report.calls);
  return kSuccess;
}

int run_sweep(const BenchOptions& options, BenchCase bench, const Console& console) {
  constexpr Index kShortest = 32;
  AttentionProblem& p = bench.problem;
  check(p.tq >= kShortest, "bench: a sweep begins at {}, --seq is {}", kShortest, p.tq);
  const Index longest = p.tq;
  bench.backward = true;
  std::vector<SweepRow> rows;
  std::vector<Index> lengths;
  for (Index time = kShortest; time <= longest; time *= 2) lengths.push_back(time);
  console.out << fmt::format("lengths {} to {}, forward and backward; ", kShortest, lengths.back())
              << bench_plan(bench, lengths.size()) << std::flush;
  const MachineLoad load;
  for (const Index time : lengths) {
    show_progress(console, fmt::format("T = {} of {}", time, longest));
    p.tq = p.tk = time;
    const BenchReport report = run_bench(bench);
    for (const std::string& line : report.skipped) spdlog::warn("T = {}: {}", time, line);
    rows.push_back(sweep_row(time, report));
  }
  show_progress(console, "\n");
  write_file(options.out, sweep_csv(rows));
  console.out << sweep_table(rows);
  say_if_busy(console, load.share_of_others());
  console.out << sweep_verdict(rows) << '\n' << fmt::format("results: {}\n", options.out) << std::flush;
  return kSuccess;
}

}  // namespace

Command add_bench_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("bench", "time naive and flash attention side by side");
  app->footer(
      "--b, --h, --gqa-groups, --q-len, --d and --type are other spellings of --batch, --heads, "
      "--kv-heads, --seq, --head-size and --attention.\n"
      "The FMA peak is the highest that was ever measured on this processor with as many threads; it is "
      "remembered in "
      "tilegrad/peaks.json in $XDG_CACHE_HOME, or else in ~/.cache.");
  const auto options = std::make_shared<BenchOptions>(*app);
  return {app, [options](const Console& console) {
            use_threads(options->threads);
            const BenchCase bench = options->resolve();
            return options->sweep ? run_sweep(*options, bench, console) : run_once(*options, bench, console);
          }};
}

}  // namespace tilegrad::train

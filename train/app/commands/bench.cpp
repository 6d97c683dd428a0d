#include <spdlog/spdlog.h>

#include <memory>

#include "tilegrad/base/file.h"
#include "tilegrad/base/format.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/app/choice.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/labs/bench_report.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"

namespace tilegrad::train {

namespace {

struct BenchOptions {
  explicit BenchOptions(CLI::App& app) {
    app.option_defaults()->take_last();
    const auto positive = [&](const std::string& name, Index& field, const std::string& help) {
      return app.add_option(name, field, help)->check(CLI::PositiveNumber);
    };
    auto* type_option = app.add_option("--type", type, "flash, normal or both")
                            ->check(CLI::IsMember({"flash", "normal", "both"}))
                            ->capture_default_str();
    positive("--b", bench.batch, "batch")->capture_default_str();
    positive("--h", bench.heads, "query heads")->capture_default_str();
    positive("--kv-heads", bench.kv_heads, "key/value heads; as many as query heads unless given");
    positive("--q-len", bench.tq, "length of the queries; of the longest ones in a sweep")
        ->capture_default_str();
    auto* kv_len = positive("--kv-len", bench.tk, "length of the keys; that of the queries unless given");
    positive("--d", bench.dim, "size of a head")->capture_default_str();
    add_choice<Dtype>(app, "--dtype", bench.dtype, "f32 (default) or f64");
    app.add_flag("--causal", bench.options.causal, "a query sees nothing behind its own position");
    app.add_option("--mask", mask, "random hides each pair with probability 1/2; or none")
        ->check(CLI::IsMember({"random", "none"}));
    app.add_option("--window", window, "N or LEFT,RIGHT: keys that a query sees to its sides")
        ->delimiter(',')
        ->expected(1, 2)
        ->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    app.add_flag("--backward", bench.backward, "time the backward pass, too");
    app.add_option("--threads", threads, "threads; 0: one for each processor")->check(CLI::Range(0, 1024));
    app.add_option("--seconds", bench.seconds, "time for each type")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    auto* profile_option =
        app.add_option("--profile", profile, "write a trace for chrome://tracing or Perfetto to this file");
    auto* json_flag = app.add_flag("--json", json, "one JSON object a line for each type and pass");
    auto* sweep_flag = app.add_flag("--sweep", sweep, "find the length from which flash is faster")
                           ->excludes(type_option)
                           ->excludes(kv_len)
                           ->excludes(json_flag)
                           ->excludes(profile_option);
    app.add_option("--out", out, "CSV file of a sweep")->needs(sweep_flag)->capture_default_str();
  }

  // The case that the options describe.
  BenchCase resolve(const CLI::App& app) const {
    BenchCase c = bench;
    if (app.count("--kv-heads") == 0) c.kv_heads = c.heads;
    if (app.count("--kv-len") == 0) c.tk = c.tq;
    c.random_mask = mask == "random";
    if (!window.empty()) c.options.window.left = window.front();
    // A causal mask already says how far the right side reaches.
    if (window.size() == 2 || (window.size() == 1 && !c.options.causal))
      c.options.window.right = window.back();
    if (type == "flash") c.kernels = {AttentionKernel::flash};
    if (type == "normal") c.kernels = {AttentionKernel::naive};
    c.skip_naive = type == "both";
    return c;
  }

  BenchCase bench;
  std::string type = "both", mask = "none", profile, out = "sweep.csv";
  std::vector<Index> window;
  int threads = 0;
  bool json = false, sweep = false;
};

std::string describe(const BenchCase& c) {
  const Window& window = c.options.window;
  std::string text = fmt::format("q {}, k and v {}, {}", Shape{c.batch, c.tq, c.heads, c.dim},
                                 Shape{c.batch, c.tk, c.kv_heads, c.dim}, c.dtype);
  if (c.options.causal) text += ", causal";
  if (window.left) text += fmt::format(", {} keys to the left", *window.left);
  if (window.right) text += fmt::format(", {} keys to the right", *window.right);
  if (c.random_mask) text += ", a random mask";
  return text + "\n";
}

std::string describe_machine(const BenchReport& report) {
  return fmt::format("{}, threads {}: FMA peak {:.1f} GFLOP/s, memory reads {:.1f} GB/s, L2 {}\n",
                     processor_name(), kernels::threads(), report.peak_gflops, read_bandwidth(),
                     format_bytes(l2_bytes()));
}

int run_once(const BenchOptions& options, const BenchCase& bench, const Console& console) {
  const BenchReport report = run_bench(bench);
  for (const std::string& line : report.skipped) spdlog::warn("{}", line);
  if (options.json) {
    for (const PassReport& pass : report.passes)
      console.out << pass_json(pass, report.peak_gflops).dump() << '\n';
  } else {
    console.out << describe_machine(report) << describe(bench) << bench_table(report);
  }
  console.out << std::flush;
  if (!options.profile.empty()) bench_trace(report.calls).write(options.profile);
  return kSuccess;
}

int run_sweep(const BenchOptions& options, BenchCase bench, const Console& console) {
  constexpr Index kShortest = 32;
  check(bench.tq >= kShortest, "bench: a sweep begins at {}, --q-len is {}", kShortest, bench.tq);
  const Index longest = bench.tq;
  bench.backward = true;
  std::vector<SweepRow> rows;
  for (Index time = kShortest; time <= longest; time *= 2) {
    bench.tq = bench.tk = time;
    const BenchReport report = run_bench(bench);
    for (const std::string& line : report.skipped) spdlog::warn("T = {}: {}", time, line);
    rows.push_back(sweep_row(time, report));
  }
  write_file(options.out, sweep_csv(rows));
  console.out << sweep_table(rows) << sweep_verdict(rows) << '\n'
              << fmt::format("results: {}\n", options.out) << std::flush;
  return kSuccess;
}

}  // namespace

Command add_bench_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("bench", "time naive and flash attention side by side");
  const auto options = std::make_shared<BenchOptions>(*app);
  return {app, [app, options](const Console& console) {
            if (options->threads > 0) kernels::set_threads(options->threads);
            const BenchCase bench = options->resolve(*app);
            return options->sweep ? run_sweep(*options, bench, console) : run_once(*options, bench, console);
          }};
}

}  // namespace tilegrad::train

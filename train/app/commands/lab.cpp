#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "tilegrad/base/lock.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/app/run_options.h"
#include "tilegrad/train/app/threads.h"
#include "tilegrad/train/app/tile_options.h"
#include "tilegrad/train/app/window_option.h"
#include "tilegrad/train/labs/checkpoint_lab.h"
#include "tilegrad/train/labs/flash_formats.h"
#include "tilegrad/train/labs/flash_lab.h"
#include "tilegrad/train/labs/heads_lab.h"
#include "tilegrad/train/run/checkpoint_policy.h"
#include "tilegrad/train/run/names.h"
#include "tilegrad/train/run/run_command_line.h"

namespace tilegrad::train {

namespace {

void add_size(CLI::App& app, const std::string& name, Index& field, const std::string& help) {
  app.add_option(name, field, help)
      ->transform(decimal<Index>())
      ->check(CLI::Range(Index{1}, Index{1} << 31))
      ->capture_default_str();
}

void add_common(CLI::App& app, LabOptions& options, Index& repeats, std::uint64_t& seed) {
  options.out = "runs/lab-" + app.get_name();
  app.add_option("--out", options.out, "folder for the results")->capture_default_str();
  add_size(app, "--repeats", repeats, "timed repetitions of each variant");
  add_threads(app, options.threads);
  app.add_flag("--profile", options.profile,
               "report what each op costs in what is timed; the files of profiles/ open in Perfetto");
  app.add_flag("--explain", options.explain, "print what each column means");
  app.add_option("--seed", seed, "decides all random numbers")
      ->transform(decimal<std::uint64_t>())
      ->capture_default_str();
}

// What is the same for every lab. A folder that was not asked for by name is never one that is in use. Profiles are
// written even if it is interrupted.
int run_lab(const CLI::App& app, LabOptions options, const Console& console,
            const std::function<int(const LabOptions&)>& run) {
  options.command = "tilegrad lab " + app.get_name() + given_options(app, {"out"});
  if (app.get_option("--out")->count() == 0) options.out = free_folder(options.out).string();
  const FolderLock lock(options.out);
  clear_profiles(options);
  use_threads(options.threads);
  options.load.emplace();
  try {
    return run(options);
  } catch (const Interrupted&) {
    if (options.profile) {
      console.out << fmt::format("interrupted; the profiles until then: {}\n",
                                 profile_folder(options).string())
                  << std::flush;
    }
    return kInterrupted;
  }
}

// What is wrong with a list of number formats; empty if nothing is.
std::string fault_in_formats(const std::string& list) {
  try {
    formats_of(list);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

Command add_flash_lab(CLI::App& labs) {
  struct Options {
    FlashLab lab;
    LabOptions common;
    std::string dtypes = "f32", memory_limit = "1GiB";
    std::vector<Index> window;
  };
  CLI::App* app = labs.add_subcommand("flash", "naive against flash attention: error, time, memory, traffic");
  const auto options = std::make_shared<Options>();
  add_size(*app, "--batch,--b", options->lab.batch, "sequences");
  add_size(*app, "--heads,--h", options->lab.heads, "heads");
  add_size(*app, "--seq,--q-len", options->lab.seq, "tokens of a sequence");
  CLI::Option* const kv_len =
      app->add_option("--kv-len", options->lab.kv_seq, "length of the keys; that of the queries unless given")
          ->transform(decimal<Index>())
          ->check(CLI::PositiveNumber);
  add_size(*app, "--head-size,--d", options->lab.head_size, "size of a head");
  app->add_flag("--causal", options->lab.causal, "mask the keys after a query's own position");
  CLI::Option* const window = add_window(*app, options->window);
  app->add_option("--dtype", options->dtypes,
                  "f32, f64, bf16 or f16, or several with commas between them, to compare; bf16 and f16 are "
                  "stored, and computed in f32")
      ->check(CLI::Validator(fault_in_formats, ""))
      ->capture_default_str();
  app->add_option(
         "--input-std", options->lab.input_std,
         "standard deviation of the random q, k, v and of out's gradient; scores are scaled to be those of 1")
      ->check(CLI::Range(1e-8, 1e8))
      ->capture_default_str();
  app->add_option("--mine", options->lab.mine,
                  "folder of a course (./dev learn): also the attention written there")
      ->excludes(kv_len)
      ->excludes(window);
  CLI::Option* const tile_sweep =
      app->add_flag("--tile-sweep", options->lab.tile_sweep, "also tiles of many sizes, drawn as a heat map");
  for (CLI::Option* size : add_tile_sizes(*app, options->lab.tile_q, options->lab.tile_k))
    tile_sweep->excludes(size);
  app->add_flag("--sweep", options->lab.sweep, "also lengths from 64 on, until one of them meets a limit")
      ->excludes(kv_len);
  app->add_option("--time-limit", options->lab.time_limit,
                  "seconds a forward and backward of the sweep may take")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--memory-limit", options->memory_limit, "bytes that the sweep may use")
      ->capture_default_str();
  add_common(*app, options->common, options->lab.repeats, options->lab.seed);
  return {app, [app, options](const Console& console) {
            // The first one is that of all other measurements.
            const std::vector<Dtype> formats = formats_of(options->dtypes);
            options->lab.dtype = formats.front();
            if (formats.size() > 1) options->lab.formats = formats;
            options->lab.memory_limit = parse_bytes("memory-limit", options->memory_limit);
            options->lab.window = window_of(options->window, options->lab.causal);
            return run_lab(*app, options->common, console, [&](const LabOptions& common) {
              return run_flash_lab(options->lab, common, console);
            });
          }};
}

Command add_heads_lab(CLI::App& labs) {
  struct Options {
    HeadsLab lab;
    LabOptions common;
  };
  CLI::App* app =
      labs.add_subcommand("heads", "MHA, GQA and MQA: what sharing key/value heads saves and costs");
  const auto options = std::make_shared<Options>();
  add_size(*app, "--heads,--h", options->lab.heads, "query heads");
  add_size(*app, "--kv-heads,--gqa-groups", options->lab.kv_heads, "key/value heads of GQA");
  add_size(*app, "--seq,--q-len", options->lab.seq, "tokens of a sequence");
  add_size(*app, "--head-size,--d", options->lab.head_size, "size of a head");
  add_size(*app, "--layers", options->lab.layers, "transformer blocks");
  add_size(*app, "--tokens", options->lab.tokens, "tokens to decode, at the end of the sequence");
  add_size(*app, "--steps", options->lab.steps, "training steps on recall");
  add_size(*app, "--seeds", options->lab.seeds, "trainings of each kind, with seeds from --seed on");
  app->add_flag("--convert", options->lab.convert, "also pool the heads of a trained MHA, and train on");
  add_common(*app, options->common, options->lab.repeats, options->lab.seed);
  return {app, [app, options](const Console& console) {
            return run_lab(*app, options->common, console, [&](const LabOptions& common) {
              return run_heads_lab(options->lab, common, console);
            });
          }};
}

Command add_checkpoint_lab(CLI::App& labs) {
  struct Options {
    CheckpointLab lab;
    LabOptions common;
    Index head_size = 0;
    std::string budget;
  };
  CLI::App* app = labs.add_subcommand("checkpoint", "what recomputing activations saves and costs");
  const auto options = std::make_shared<Options>();
  add_size(*app, "--layers", options->lab.layers, "transformer blocks");
  add_size(*app, "--batch,--b", options->lab.batch, "sequences");
  add_size(*app, "--heads,--h", options->lab.heads, "heads");
  add_size(*app, "--seq,--q-len", options->lab.seq, "tokens of a sequence");
  CLI::Option* const width = app->add_option("--width", options->lab.width, "size of a token's vector")
                                 ->transform(decimal<Index>())
                                 ->check(CLI::Range(Index{1}, Index{1} << 31))
                                 ->capture_default_str();
  CLI::Option* const head_size = app->add_option("--head-size,--d", options->head_size,
                                                 "size of a head; with --heads it gives the width")
                                     ->transform(decimal<Index>())
                                     ->check(CLI::Range(Index{1}, Index{1} << 31))
                                     ->excludes(width);
  app->add_option("--budget", options->budget,
                  "bytes that a step may need, such as 64MiB; halfway between least and most unless given");
  add_common(*app, options->common, options->lab.repeats, options->lab.seed);
  return {app, [app, head_size, options](const Console& console) {
            if (head_size->count() > 0) options->lab.width = options->lab.heads * options->head_size;
            if (!options->budget.empty()) options->lab.budget = parse_bytes("budget", options->budget);
            return run_lab(*app, options->common, console, [&](const LabOptions& common) {
              return run_checkpoint_lab(options->lab, common, console);
            });
          }};
}

// What measure_in_child() starts. Nobody types it, so --help does not show it.
Command add_measure(CLI::App& labs) {
  CLI::App* app = labs.add_subcommand("measure", "one measurement of a lab")->group("");
  const auto folder = std::make_shared<std::string>();
  app->add_option("folder", *folder, "folder with the task")->required();
  return {app, [folder](const Console&) {
            run_measurement(*folder);
            return kSuccess;
          }};
}

}  // namespace

Command add_lab_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("lab", "an experiment, measured on this machine");
  app->require_subcommand(1);
  const std::vector<Command> labs = {add_flash_lab(*app), add_heads_lab(*app), add_checkpoint_lab(*app),
                                     add_measure(*app)};
  return {app, [labs](const Console& console) {
            const auto chosen =
                std::find_if(labs.begin(), labs.end(), [](const Command& lab) { return lab.app->parsed(); });
            return chosen->run(console);
          }};
}

}  // namespace tilegrad::train

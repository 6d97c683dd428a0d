#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "tilegrad/train/report/console.h"

namespace tilegrad::train {

/// A subcommand of the program: its options, and what it does once they are parsed. Each has a file of its
/// own, with one function that adds it.
struct Command {
  CLI::App* app;
  std::function<int(const Console&)> run;  ///< returns the exit code; throws Error
};

Command add_train_command(CLI::App& program);
Command add_compare_command(CLI::App& program);
Command add_sample_command(CLI::App& program);
Command add_evaluate_command(CLI::App& program);
Command add_look_command(CLI::App& program);
Command add_check_command(CLI::App& program);
Command add_attention_command(CLI::App& program);
Command add_bench_command(CLI::App& program);
Command add_report_command(CLI::App& program);
Command add_lab_command(CLI::App& program);

}  // namespace tilegrad::train

#pragma once

#include <vector>

#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/train/app/decimal.h"

namespace tilegrad::train {

/// The option --window of attention that is measured: one number for both sides, or one for each.
inline CLI::Option* add_window(CLI::App& app, std::vector<Index>& sides) {
  return app.add_option("--window", sides, "N or LEFT,RIGHT: keys that a query sees on either side")
      ->transform(decimal<Index>())
      ->delimiter(',')
      ->expected(1, 2)
      ->multi_option_policy(CLI::MultiOptionPolicy::Throw);
}

/// What it asks for; unbounded if it was not given. A causal mask already says how far the right side reaches.
inline kernels::Window window_of(const std::vector<Index>& sides, bool causal) {
  kernels::Window window;
  if (!sides.empty()) window.left = sides.front();
  if (sides.size() == 2 || (sides.size() == 1 && !causal)) window.right = sides.back();
  return window;
}

}  // namespace tilegrad::train

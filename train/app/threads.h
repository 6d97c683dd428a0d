#pragma once

#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/app/decimal.h"

namespace tilegrad::train {

/// The option --threads of a command. (That of `train` is a setting of the run.)
inline CLI::Option* add_threads(CLI::App& app, int& threads) {
  return app.add_option("--threads", threads, "threads; 0: one for each processor")
      ->transform(decimal<int>())
      ->check(CLI::Range(0, 1024));
}

/// What the option asked for.
inline void use_threads(int threads) {
  if (threads > 0) kernels::set_threads(threads);
}

}  // namespace tilegrad::train

#include "tilegrad/train/run/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tilegrad::train {

namespace {

// How much of the way from `begin` to `end` a step has covered, from 0 to 1.
double share_of_way(Index step, Index begin, Index end) {
  const auto length = static_cast<double>(std::max<Index>(1, end - begin));
  return std::clamp(static_cast<double>(step - begin) / length, 0.0, 1.0);
}

}  // namespace

double learning_rate(const RunConfig& c, Index step) {
  if (step < c.warmup) return c.lr * static_cast<double>(step + 1) / static_cast<double>(c.warmup);
  const double done = share_of_way(step, c.warmup, c.steps);
  switch (c.schedule) {
    case LrSchedule::cosine:
      return c.min_lr + 0.5 * (c.lr - c.min_lr) * (1 + std::cos(std::numbers::pi * done));
    case LrSchedule::linear:
      return c.lr + (c.min_lr - c.lr) * done;
    case LrSchedule::constant:
      return c.lr;
    case LrSchedule::wsd: {
      const Index decay = c.decay.value_or(c.steps / 5);
      return c.lr + (c.min_lr - c.lr) * share_of_way(step, std::max(c.warmup, c.steps - decay), c.steps);
    }
  }
  return c.lr;
}

}  // namespace tilegrad::train

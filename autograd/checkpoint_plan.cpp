#include "tilegrad/autograd/checkpoint_plan.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "tilegrad/base/error.h"
#include "tilegrad/base/format.h"

namespace tilegrad {

namespace {

// The chain as stages 0 ... n − 1, of which 1 ... n − 2 are the blocks. The memory needed at any moment is
// counted on top of the input of the stages in question. Two allocations outlive a stage:
//  - While stages up to t go backward, the gradient of t's output; see end_of().
//  - The parameter gradients of the stages that are already done.
class Stages {
 public:
  explicit Stages(const ChainCost& chain) : resident(chain.resident) {
    stages_.push_back(chain.prologue);
    stages_.insert(stages_.end(), chain.blocks.begin(), chain.blocks.end());
    stages_.push_back(chain.epilogue);
    gradients_.assign(stages_.size(), 0);
    for (std::size_t i = stages_.size() - 1; i > 0; --i) {
      gradients_[i - 1] = gradients_[i] + stages_[i].gradients;
    }
  }

  Index last() const { return std::ssize(stages_) - 1; }
  const StageCost& operator[](Index i) const { return stages_[i]; }
  Index gradients_after(Index i) const { return gradients_[i]; }

  // What of stage t's end lives while the stages up to it go backward: the gradient of its output and, at the end of the
  // whole chain, the loss itself. The output of a replay is not kept.
  Index end_of(Index t) const { return (t == last() ? 2 : 1) * (*this)[t].output; }

  // Stage s of [s, t] is recorded and walked back; `rest` is what stages [s + 1, t] need.
  Index recorded(Index s, Index t, Index rest) const {
    const StageCost& stage = (*this)[s];
    const Index forward = (*this)[t].output + stage.recorded_peak + gradients_after(t);
    const Index backward = end_of(t) + stage.backward_peak + gradients_after(s);
    return std::max({forward, backward, rest_offset(s) + rest});
  }
  Index rest_offset(Index s) const { return (*this)[s].saved + (*this)[s].output; }

  // Stage t, the last of its chain.
  Index alone(Index t) const {
    const StageCost& stage = (*this)[t];
    const bool at_top = t == last();
    return (at_top ? std::max(stage.recorded_peak, stage.backward_peak) : stage.replay_peak) +
           gradients_after(t);
  }

  // Stages [s, k] of [s, t] run with nothing recorded.
  Index walk(Index s, Index k, Index t) const {
    Index highest = 0;
    for (Index j = s; j <= k; ++j) {
      highest = std::max(highest, (j > s ? (*this)[j - 1].output : 0) + (*this)[j].forward_peak);
    }
    return highest + (*this)[t].output + gradients_after(t);
  }
  // Stages [s, k] of [s, t] are a segment; its replay needs `replay`, stages [k + 1, t] need `rest`.
  Index segment(Index s, Index k, Index t, Index replay, Index rest) const {
    return std::max({walk(s, k, t), end_of(t) + replay, (*this)[k].output + rest});
  }
  // Of the segment [s, k] run again.
  Index nanoseconds(Index s, Index k) const {
    Index sum = (*this)[k].replay_nanoseconds;
    for (Index j = s; j < k; ++j) sum += (*this)[j].nanoseconds;
    return sum;
  }
  Index ops(Index s, Index k) const {
    Index sum = (*this)[k].replay_ops;
    for (Index j = s; j < k; ++j) sum += (*this)[j].ops;
    return sum;
  }

  const Index resident;

 private:
  std::vector<StageCost> stages_;
  std::vector<Index> gradients_;  // of all later stages
};

ScheduleCost cost_of_chain(const Stages& stages, Index s, Index t, std::span<const Segment> segments) {
  // Nothing is left: the output and its gradient alone.
  if (s > t) return {.peak = stages[t].output + stages.gradients_after(t)};
  // Block b is stage b + 1.
  if (!segments.empty() && segments[0].begin + 1 == s) {
    const Index k = segments[0].end;
    const ScheduleCost replay = cost_of_chain(stages, s, k, segments[0].inside);
    const ScheduleCost rest = cost_of_chain(stages, k + 1, t, segments.subspan(1));
    return {.peak = stages.segment(s, k, t, replay.peak, rest.peak),
            .nanoseconds = stages.nanoseconds(s, k) + replay.nanoseconds + rest.nanoseconds,
            .ops = stages.ops(s, k) + replay.ops + rest.ops};
  }
  if (s == t) return {.peak = stages.alone(t), .ops = stages[t].recomputed};
  ScheduleCost cost = cost_of_chain(stages, s + 1, t, segments);
  cost.peak = stages.recorded(s, t, cost.peak);
  cost.ops += stages[s].recomputed;
  return cost;
}

// A step of a staircase: with `peak` bytes, stages [s, t] take `nanoseconds` if they begin like this.
struct Step {
  Index peak = 0;
  Index nanoseconds = 0;
  Index next = 0;             // the rest begins there
  bool checkpointed = false;  // whether [s, next) is a segment
};
// In order of rising peaks; the time falls with each step.
using Staircase = std::vector<Step>;

const Step* step_within(const Staircase& stairs, Index peak) {
  const auto above = std::upper_bound(stairs.begin(), stairs.end(), peak,
                                      [](Index bytes, const Step& step) { return bytes < step.peak; });
  return above == stairs.begin() ? nullptr : &*std::prev(above);
}

Staircase lower_hull(Staircase steps) {
  std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) {
    return a.peak != b.peak ? a.peak < b.peak : a.nanoseconds < b.nanoseconds;
  });
  Staircase stairs;
  for (const Step& step : steps) {
    if (stairs.empty() || step.nanoseconds < stairs.back().nanoseconds) stairs.push_back(step);
  }
  return stairs;
}

class Planner {
 public:
  explicit Planner(const ChainCost& chain) : stages_(chain) {
    const auto n = static_cast<std::size_t>(stages_.last() + 1);
    stairs_.assign(n, std::vector<Staircase>(n));
    for (Index length = 1; length <= stages_.last() + 1; ++length) {
      for (Index s = 0; s + length - 1 <= stages_.last(); ++s) build(s, s + length - 1);
    }
  }

  const Staircase& whole() const { return stairs(0, stages_.last()); }
  Schedule schedule(Index peak) const { return schedule(0, stages_.last(), peak); }
  Index resident() const { return stages_.resident; }

 private:
  const Staircase& stairs(Index s, Index t) const { return stairs_[s][t]; }

  void build(Index s, Index t) {
    Staircase steps;
    if (s == t) {
      steps.push_back({.peak = stages_.alone(t), .next = t + 1});
    } else {
      for (const Step& rest : stairs(s + 1, t)) {
        steps.push_back({stages_.recorded(s, t, rest.peak), rest.nanoseconds, s + 1, false});
      }
      // The prologue is never part of a segment. Nor does a chain end with a segment: running its blocks
      // again at once would cost time and save nothing.
      for (Index k = s; s > 0 && k < t; ++k) add_segments(s, k, t, steps);
    }
    stairs_[s][t] = lower_hull(std::move(steps));
  }

  // Replay and rest have a staircase each, and both must fit: the candidates are the steps of either.
  void add_segments(Index s, Index k, Index t, Staircase& steps) const {
    const Staircase &replays = stairs(s, k), &rests = stairs(k + 1, t);
    const Index replay_offset = stages_.end_of(t), rest_offset = stages_[k].output;
    const auto add = [&](Index peak) {
      const Step* replay = step_within(replays, peak - replay_offset);
      const Step* rest = step_within(rests, peak - rest_offset);
      if (replay == nullptr || rest == nullptr) return;
      steps.push_back({.peak = stages_.segment(s, k, t, replay->peak, rest->peak),
                       .nanoseconds = stages_.nanoseconds(s, k) + replay->nanoseconds + rest->nanoseconds,
                       .next = k + 1,
                       .checkpointed = true});
    };
    for (const Step& replay : replays) add(replay.peak + replay_offset);
    for (const Step& rest : rests) add(rest.peak + rest_offset);
  }

  Schedule schedule(Index s, Index t, Index peak) const {
    const Step& step = *step_within(stairs(s, t), peak);
    if (s == t) return {};
    if (!step.checkpointed) return schedule(s + 1, t, step.peak - stages_.rest_offset(s));
    const Index k = step.next - 1;
    // Block b is stage b + 1.
    Schedule segments = {{.begin = s - 1, .end = k, .inside = schedule(s, k, step.peak - stages_.end_of(t))}};
    const Schedule rest = schedule(k + 1, t, step.peak - stages_[k].output);
    segments.insert(segments.end(), rest.begin(), rest.end());
    return segments;
  }

  Stages stages_;
  std::vector<std::vector<Staircase>> stairs_;
};

}  // namespace

Schedule even_segments(Index layers, Index segments) {
  Schedule schedule;
  for (Index s = 0; s + 1 < segments; ++s) {
    schedule.push_back({.begin = s * layers / segments, .end = (s + 1) * layers / segments});
  }
  return schedule;
}

ScheduleCost cost_of(const ChainCost& chain, const Schedule& schedule) {
  const Stages stages(chain);
  ScheduleCost cost = cost_of_chain(stages, 0, stages.last(), schedule);
  cost.peak += stages.resident;
  return cost;
}

Index least_budget(const ChainCost& chain) {
  const Planner planner(chain);
  return planner.resident() + planner.whole().front().peak;
}

Schedule plan_checkpoints(const ChainCost& chain, Index budget) {
  const Planner planner(chain);
  const Index least = planner.resident() + planner.whole().front().peak;
  check(budget >= least, "checkpoint: a budget of {} ({} bytes) is below the minimum, {} ({} bytes)",
        format_bytes(budget), budget, format_bytes(least), least);
  return planner.schedule(budget - planner.resident());
}

std::vector<ScheduleCost> best_schedules(const ChainCost& chain) {
  const Planner planner(chain);
  std::vector<ScheduleCost> costs;
  for (const Step& step : planner.whole()) costs.push_back(cost_of(chain, planner.schedule(step.peak)));
  return costs;
}

}  // namespace tilegrad

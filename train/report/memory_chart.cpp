#include "tilegrad/train/report/memory_chart.h"

#include <algorithm>
#include <array>

#include "tilegrad/base/format.h"

namespace tilegrad::train {

namespace {

// Where the parts of the step lie on the x axis.
constexpr double kForwardEnd = 1, kBackwardEnd = 2, kUpdateEnd = 2.2;

// Moves times of one run to the common axis.
class StepAxis {
 public:
  explicit StepAxis(const MemoryTimeline& timeline) {
    const auto begin = timeline.begin(), end = timeline.end();
    const auto backward =
        std::find_if(begin, end, [](const MemoryEvent& e) { return e.phase != Phase::forward; });
    const auto update =
        std::find_if(backward, end, [](const MemoryEvent& e) { return e.phase == Phase::update; });
    const double last = timeline.back().ms;
    times_ = {begin->ms, backward == end ? last : backward->ms, update == end ? last : update->ms, last};
  }

  double operator()(double ms) const {
    std::size_t part = 0;
    while (part < 2 && ms >= times_[part + 1]) ++part;
    const double length = times_[part + 1] - times_[part];
    const double share = length > 0 ? std::min(1.0, (ms - times_[part]) / length) : 0;
    return kPlaces[part] + share * (kPlaces[part + 1] - kPlaces[part]);
  }

 private:
  static constexpr std::array kPlaces = {0.0, kForwardEnd, kBackwardEnd, kUpdateEnd};
  std::array<double, 4> times_;
};

using Points = std::vector<std::pair<double, double>>;

// Of each of many short stretches, keeps the first point, the extremes and the last point: the picture stays
// the same, on a page of a hundredth of the size.
Points thinned(const Points& points) {
  constexpr std::size_t kStretches = 400;
  if (points.size() <= 4 * kStretches) return points;
  const auto lower = [](const auto& a, const auto& b) { return a.second < b.second; };
  Points kept;
  for (std::size_t i = 0; i < kStretches; ++i) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(i * points.size() / kStretches);
    const auto end = points.begin() + static_cast<std::ptrdiff_t>((i + 1) * points.size() / kStretches);
    const auto extremes = std::minmax_element(begin, end, lower);
    std::array places = {begin, extremes.first, extremes.second, end - 1};
    std::sort(places.begin(), places.end());
    const auto unique_end = std::unique(places.begin(), places.end());
    for (auto place = places.begin(); place != unique_end; ++place) kept.push_back(**place);
  }
  return kept;
}

Series series_of(const std::string& name, const MemoryTimeline& timeline) {
  const StepAxis axis(timeline);
  Points points, shaded;
  Phase before = Phase::forward;
  for (const MemoryEvent& event : timeline) {
    const double x = axis(event.ms);
    points.emplace_back(x, mebibytes(event.live_bytes));
    const bool begins = event.phase == Phase::recompute && before != Phase::recompute;
    if (begins) shaded.emplace_back(x, kBackwardEnd);
    if (before == Phase::recompute && event.phase != Phase::recompute) shaded.back().second = x;
    before = event.phase;
  }
  return {.name = name, .points = thinned(points), .shaded = std::move(shaded)};
}

}  // namespace

Chart memory_chart(const std::vector<std::pair<std::string, MemoryTimeline>>& timelines) {
  Chart chart = {.title = "Live memory through one training step",
                 .note = "Forward saves what backward needs and then frees. Shaded: a checkpoint recomputes.",
                 .x = {.title = ""},
                 .y = {.title = "live memory, MiB"},
                 .series = {},
                 .stepped = true,
                 .bands = {{.from = 0, .to = kForwardEnd, .name = "forward"},
                           {.from = kForwardEnd, .to = kBackwardEnd, .name = "backward"},
                           {.from = kBackwardEnd, .to = kUpdateEnd, .name = "update"}}};
  for (const auto& [name, timeline] : timelines) chart.series.push_back(series_of(name, timeline));
  return chart;
}

}  // namespace tilegrad::train

#include "tilegrad/train/report/memory_chart.h"

#include <algorithm>
#include <array>

#include "tilegrad/base/format.h"

namespace tilegrad::train {

namespace {

// Where the parts of the step lie on the x axis.
constexpr double kForwardEnd = 1, kBackwardEnd = 2, kUpdateEnd = 2.2;

// Moves the ops of one run to the common axis: runs of equal ops draw equal stairs, however long these took.
class StepAxis {
 public:
  explicit StepAxis(const MemoryTimeline& timeline) : counts_ops_(timeline.back().op > 0) {
    const auto begin = timeline.begin(), end = timeline.end();
    const auto backward =
        std::find_if(begin, end, [](const MemoryEvent& e) { return e.phase != Phase::forward; });
    const auto update =
        std::find_if(backward, end, [](const MemoryEvent& e) { return e.phase == Phase::update; });
    const auto number = [&](auto event) {
      const auto last = static_cast<std::size_t>(event - begin);
      return event == end ? at(timeline, last - 1) + 1 : at(timeline, last);
    };
    begins_ = {number(begin), number(backward), number(update), number(end)};
  }

  // Where the event of this index stands.
  double operator()(const MemoryTimeline& timeline, std::size_t i) const {
    const double number = at(timeline, i);
    std::size_t part = 0;
    while (part < 2 && number >= begins_[part + 1]) ++part;
    const double length = begins_[part + 1] - begins_[part];
    const double share = length > 0 ? std::clamp((number - begins_[part]) / length, 0.0, 1.0) : 0;
    return kPlaces[part] + share * (kPlaces[part + 1] - kPlaces[part]);
  }

 private:
  // Older programs did not count ops; then every change is one.
  double at(const MemoryTimeline& timeline, std::size_t i) const {
    return static_cast<double>(counts_ops_ ? timeline[i].op : static_cast<Index>(i));
  }

  static constexpr std::array kPlaces = {0.0, kForwardEnd, kBackwardEnd, kUpdateEnd};
  bool counts_ops_;
  std::array<double, 4> begins_;  // of the parts, and the end of the last one
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
  for (std::size_t i = 0; i < timeline.size(); ++i) {
    const MemoryEvent& event = timeline[i];
    const double x = axis(timeline, i);
    points.emplace_back(x, mebibytes(event.live_bytes));
    const bool begins = event.phase == Phase::recompute && before != Phase::recompute;
    if (begins) shaded.emplace_back(x, kBackwardEnd);
    if (before == Phase::recompute && event.phase != Phase::recompute) shaded.back().second = x;
    before = event.phase;
  }
  points.emplace_back(kUpdateEnd, points.back().second);  // what is live stays so until the step ends
  return {.name = name, .points = thinned(points), .shaded = std::move(shaded)};
}

}  // namespace

Chart memory_chart(const std::vector<std::pair<std::string, MemoryTimeline>>& timelines) {
  Chart chart = {.title = "Live memory through one training step",
                 .note = "Op by op: forward saves what backward needs and then frees.",
                 .x = {.title = ""},
                 .y = {.title = "live memory, MiB"},
                 .series = {},
                 .stepped = true,
                 .bands = {{.from = 0, .to = kForwardEnd, .name = "forward"},
                           {.from = kForwardEnd, .to = kBackwardEnd, .name = "backward"},
                           {.from = kBackwardEnd, .to = kUpdateEnd, .name = "update"}}};
  for (const auto& [name, timeline] : timelines) chart.series.push_back(series_of(name, timeline));
  const bool recomputes = std::any_of(chart.series.begin(), chart.series.end(),
                                      [](const Series& series) { return !series.shaded.empty(); });
  if (recomputes) chart.note += " Shaded in a run's colour: a checkpoint recomputes.";
  return chart;
}

}  // namespace tilegrad::train

#include "tilegrad/train/measure/machine_load.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

namespace tilegrad::train {

namespace {

// The columns of a line of /proc/stat, proc(5): the first eight are all there is; guests are a part of user and nice.
enum Column { kUser, kNice, kSystem, kIdle, kIowait, kIrq, kSoftirq, kSteal, kColumns };

std::optional<ProcessorTimes> times_of_line(const std::string& columns) {
  std::istringstream in(columns);
  std::array<double, kColumns> ticks{};
  for (double& column : ticks) {
    if (!(in >> column)) return std::nullopt;
  }
  ProcessorTimes times;
  for (const double column : ticks) times.all += column;
  times.busy = times.all - ticks[kIdle] - ticks[kIowait];
  return times;
}

std::vector<int> usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> processors;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return processors;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(static_cast<std::size_t>(i), &set)) processors.push_back(i);
  }
  return processors;
}

std::optional<ProcessorTimes> processor_times() {
  std::ifstream file("/proc/stat");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const std::vector<int> processors = usable_processors();
  if (processors.empty()) return std::nullopt;
  return parse_processor_times(text, processors, static_cast<double>(::sysconf(_SC_CLK_TCK)));
}

double own_seconds() {
  double seconds = 0;
  for (const auto who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage usage = {};
    ::getrusage(who, &usage);
    for (const timeval& time : {usage.ru_utime, usage.ru_stime}) {
      seconds += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    }
  }
  return seconds;
}

}  // namespace

std::optional<ProcessorTimes> parse_processor_times(std::string_view stat, std::span<const int> processors,
                                                    double ticks_per_second) {
  ProcessorTimes sum;
  std::size_t found = 0;
  std::istringstream lines{std::string(stat)};
  for (std::string line; std::getline(lines, line);) {
    const auto space = line.find(' ');
    const bool wanted = std::any_of(processors.begin(), processors.end(), [&](int processor) {
      return line.substr(0, space) == fmt::format("cpu{}", processor);
    });
    if (!wanted || space == std::string::npos) continue;
    const auto times = times_of_line(line.substr(space));
    if (!times) return std::nullopt;
    sum.busy += times->busy / ticks_per_second;
    sum.all += times->all / ticks_per_second;
    ++found;
  }
  return found == processors.size() ? std::optional(sum) : std::nullopt;
}

std::optional<double> share_of_others(const ProcessorTimes& before, const ProcessorTimes& after,
                                      double own_seconds) {
  constexpr double kShortest = 0.5;  // seconds: fifty ticks of most systems
  const double all = after.all - before.all;
  if (all < kShortest) return std::nullopt;
  return std::clamp((after.busy - before.busy - own_seconds) / all, 0.0, 1.0);
}

MachineLoad::MachineLoad() : before_(processor_times()), own_before_(own_seconds()) {}

std::optional<double> MachineLoad::share_of_others() const {
  const auto now = processor_times();
  if (!before_ || !now) return std::nullopt;
  return train::share_of_others(*before_, *now, own_seconds() - own_before_);
}

std::string busy_note(std::optional<double> share_of_others) {
  constexpr double kBusy = 0.1;
  if (!share_of_others || *share_of_others <= kBusy) return "";
  return fmt::format(
      "the machine is busy: other programs took {:.0f} % of its processors' time meanwhile, so that times "
      "are longer "
      "and less certain than on an idle machine",
      100 * *share_of_others);
}

}  // namespace tilegrad::train

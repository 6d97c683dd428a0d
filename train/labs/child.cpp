#include "tilegrad/train/labs/child.h"

#include <fmt/format.h>

#include <array>
#include <chrono>

#include "tilegrad/base/file.h"
#include "tilegrad/base/interrupt.h"
#include "tilegrad/base/process.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/labs/lab_duration.h"
#include "tilegrad/train/labs/lab_profile.h"
#include "tilegrad/train/labs/measurements.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace fs = std::filesystem;

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Task, measurement, variant, arguments, repeats, threads, profile)

namespace {

fs::path task_file(const fs::path& folder) { return folder / "task.json"; }
fs::path result_file(const fs::path& folder) { return folder / "result.json"; }

Json read_json(const fs::path& file) {
  Json json = Json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  check(!json.is_discarded(), "{}: is not JSON", file.string());
  return json;
}

void join_lists(Json& to, const Json& from) {
  for (const auto& [key, value] : from.items()) {
    if (value.is_array()) to[key].insert(to[key].end(), value.begin(), value.end());
  }
}

// Also if the child failed or was interrupted.
struct RemoveAtEnd {
  std::array<fs::path, 2> files;
  ~RemoveAtEnd() {
    std::error_code ignored;
    for (const fs::path& file : files) fs::remove(file, ignored);
  }
};

}  // namespace

std::vector<double> CallTimer::time(const std::string& what, const std::function<void()>& f) const {
  using Clock = std::chrono::steady_clock;
  LabProfile profile(profile_, what);
  std::vector<double> ms;
  do {
    profile.begin();
    const auto start = Clock::now();
    f();
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    profile.end();
    profile.write();  // each time, because an interrupt ends this process
  } while (std::ssize(ms) < repeats_);
  return ms;
}

Json measure(const Task& task) {
  const auto found = measurements().find(task.measurement);
  check(found != measurements().end(), "lab: there is no measurement `{}`", task.measurement);
  return found->second(task.arguments, CallTimer(task));
}

Json measure_in_child(const LabOptions& options, Task task) {
  const fs::path folder = options.out;
  make_folder(folder);
  task.threads = options.threads;
  if (options.profile) task.profile = profile_stem(options, task.variant);
  write_file(task_file(folder), Json(task).dump(2) + "\n");
  const InterruptScope interrupt;
  const RemoveAtEnd task_and_result{{task_file(folder), result_file(folder)}};
  const ChildResult child = run_child(options.program, {"lab", "measure", folder.string()});
  if (InterruptScope::requested()) throw Interrupted("lab: interrupted");
  check(child.exit_code == kSuccess, "lab: the measurement `{}` failed with exit code {}", task.measurement,
        child.exit_code);
  Json result = read_json(result_file(folder));
  result["peak_rss"] = child.peak_rss;
  return result;
}

void run_measurement(const fs::path& folder) {
  const auto task = read_json(task_file(folder)).get<Task>();
  if (task.threads > 0) kernels::set_threads(task.threads);
  Json result = measure(task);
  result["threads"] = kernels::threads();
  write_file(result_file(folder), result.dump() + "\n");
}

namespace {

// That decide anything.
constexpr auto kFewestRounds = static_cast<int>(kRoundLooks.front());

// Until there are `count` rounds.
void add_rounds(const LabOptions& options, const std::vector<Task>& tasks, const Console& console, int count,
                Rounds& measured, const FirstRound& first_round = {}) {
  const auto todo = tasks.size() * static_cast<std::size_t>(count - measured.count);
  LabProgress progress(console, "measurements", todo);
  std::vector<double> seconds;
  for (; measured.count < count; ++measured.count) {
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const Stopwatch watch;
      const Json result = measure_in_child(options, tasks[i]);
      if (measured.count == 0) measured.results[i] = result;
      if (measured.count > 0) join_lists(measured.results[i], result);
      seconds.push_back(watch.seconds());
      progress.done();
    }
    if (measured.count == 0 && first_round) {
      progress.clear();
      first_round(seconds);
    }
  }
}

}  // namespace

std::vector<Json> measure_interleaved(const LabOptions& options, const std::vector<Task>& tasks,
                                      const Console& console) {
  return measure_until_decided(options, tasks, console, [](const Rounds&) { return false; }).results;
}

Rounds measure_until_decided(const LabOptions& options, const std::vector<Task>& tasks,
                             const Console& console, const std::function<bool(const Rounds&)>& undecided,
                             const FirstRound& first_round) {
  Rounds measured = {.results = std::vector<Json>(tasks.size())};
  add_rounds(options, tasks, console, options.rounds, measured, first_round);
  for (const std::size_t look : kRoundLooks) {
    const auto rounds = static_cast<int>(look);
    if (measured.count < kFewestRounds || rounds <= measured.count) continue;
    if (!undecided(measured)) break;
    add_rounds(options, tasks, console, rounds, measured);
  }
  return measured;
}

std::string planned_rounds(const LabOptions& options) {
  if (options.rounds < kFewestRounds) return fmt::format("{} rounds", options.rounds);
  return fmt::format("{} rounds (up to {} while undecided)", options.rounds, kRoundLooks.back());
}

std::string repetitions(Index repeats) {
  return fmt::format("{} repetition{}", repeats, repeats == 1 ? "" : "s");
}

}  // namespace tilegrad::train

#include "tilegrad/train/app/train_run.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "tilegrad/base/format.h"
#include "tilegrad/base/interrupt.h"
#include "tilegrad/base/json.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/nn/weights.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/app/progress.h"
#include "tilegrad/train/measure/chrome_trace.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/report/table.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/run_command_line.h"
#include "tilegrad/train/run/run_folder.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

namespace {

// What the summary reports.
struct Outcome {
  std::vector<double> ms;  // of each step
  StepReport last;
  StepReport highest;  // the step that needed most memory
  double train_loss = 0;
  std::optional<Evaluation> evaluation;
  std::optional<Profile> profile;
  bool interrupted = false;
};

// Checks all that can be checked before anything is written, and returns the folder of the run.
std::string claimable_folder(const RunConfig& config, const RunControl& control) {
  config.validate();
  if (!control.resume && !control.overwrite) check_free(config.out);
  return config.out;
}

class TrainingRun {
 public:
  TrainingRun(const RunConfig& config, const RunControl& control)
      : control_(control),
        lock_(claimable_folder(config, control)),
        trainer_(config),
        folder_(config.out),
        metrics_((prepare_folder(), folder_.metrics_file()),
                 control.resume ? MetricsWriter::Start::append : MetricsWriter::Start::empty) {}

  Outcome run(const Console& console);
  Trainer& trainer() { return trainer_; }

 private:
  // Runs before metrics.jsonl is opened.
  void prepare_folder() {
    if (control_.resume) {
      folder_.load_state(trainer_);
      const std::string lost = keep_metrics_until(folder_.metrics_file(), trainer_.state().step);
      if (!lost.empty()) spdlog::warn("{}", lost);
      folder_.write_config(trainer_.config());
    } else {
      if (holds_results(folder_.path())) previous_.emplace(folder_);
      folder_.start(trainer_.config());
      write_environment(folder_.environment_file(),
                        current_environment("tilegrad train" + options_of(trainer_.config())));
      unsaved_ = true;
    }
  }

  StepReport step(Profiler* profiler);
  Profiler* next_profiler();
  void write_profile(Outcome& outcome) const;
  void one_step(Outcome& outcome, Progress& progress);
  bool evaluation_due();
  void evaluate(Outcome& outcome, Progress& progress);
  void save();

  RunControl control_;
  FolderLock lock_;
  Trainer trainer_;
  RunFolder folder_;
  std::optional<PreviousRun> previous_;
  MetricsWriter metrics_;
  std::optional<Profiler> profiler_;
  Index done_ = 0;        // steps of this call of the program
  bool unsaved_ = false;  // something changed since the last save
};

constexpr Index kLastProfiled = 4;

// The profiler of the next step; nullptr if it is none of those to be profiled. What the first step found is
// forgotten as soon as there is a second one, because the first one makes what later ones find.
Profiler* TrainingRun::next_profiler() {
  if (!control_.profile || done_ >= kLastProfiled) return nullptr;
  if (done_ < 2) profiler_.emplace();
  return &*profiler_;
}

// After each profiled step, so that whatever ends the run, what there is has been written.
void TrainingRun::write_profile(Outcome& outcome) const {
  outcome.profile = profiler_->profile("step");
  profiler_->trace("step").write(folder_.profile_file());
  train::write_profile(folder_.ops_file(), *outcome.profile);
}

void TrainingRun::save() {
  folder_.save(trainer_);
  unsaved_ = false;
  if (previous_) previous_->drop();
  previous_.reset();
}

// Of the second step, because the first one makes what later ones find: gradients and optimiser state.
StepReport TrainingRun::step(Profiler* profiler) {
  const Index number = trainer_.state().step + 1;
  try {
    if (number != std::min<Index>(2, trainer_.config().steps)) return trainer_.step(profiler);
    Profiler own;
    Profiler& recorder = profiler != nullptr ? *profiler : own;
    const StepReport report = trainer_.step(&recorder);
    write_memory_timeline(folder_.memory_file(), recorder.memory(number));
    return report;
  } catch (const Error& error) {
    // The optimiser comes last, so the weights are still those of the step before. They are not worth an
    // older run.
    if (unsaved_ && !previous_ && nn::all_finite(nn::parameters(trainer_.model()))) save();
    fail("step {}: {}", number, error.what());
  }
}

void TrainingRun::one_step(Outcome& outcome, Progress& progress) {
  Profiler* const profiler = next_profiler();
  outcome.last = step(profiler);
  ++done_;
  unsaved_ = true;
  if (profiler != nullptr) write_profile(outcome);
  outcome.ms.push_back(outcome.last.ms);
  if (outcome.last.peak_bytes > outcome.highest.peak_bytes) outcome.highest = outcome.last;
  metrics_.write(outcome.last);
  progress.step(outcome.last);
}

// Also of a resumed run that was stopped before the evaluation of its last step.
bool TrainingRun::evaluation_due() {
  const TrainState& state = trainer_.state();
  const RunConfig& c = trainer_.config();
  return state.loss_count > 0 && (state.step % c.eval_every == 0 || state.step == c.steps);
}

// An interrupt ends the evaluation, which then takes place when the run is resumed.
void TrainingRun::evaluate(Outcome& outcome, Progress& progress) {
  // The last evaluation takes all held-out data; earlier ones a fixed part of it, to cost little.
  constexpr Index kExamplesOnTheWay = 512;
  const Index step = trainer_.state().step;
  const Evaluation evaluation =
      trainer_.evaluate(step == trainer_.config().steps ? 0 : kExamplesOnTheWay, &InterruptScope::requested);
  if (InterruptScope::requested()) return;
  outcome.evaluation = evaluation;
  outcome.train_loss = trainer_.take_mean_loss();
  unsaved_ = true;
  metrics_.write(step, outcome.train_loss, evaluation);
  progress.evaluation(evaluation);
}

Outcome TrainingRun::run(const Console& console) {
  const RunConfig& c = trainer_.config();
  const Index first = trainer_.state().step;
  const Index end = control_.stop_after > 0 ? std::min(c.steps, first + control_.stop_after) : c.steps;
  Outcome outcome;
  const InterruptScope interrupt;
  Progress progress(
      console, {.steps = c.steps, .label = control_.label, .quiet = control_.quiet, .json = control_.json});
  if (evaluation_due()) evaluate(outcome, progress);
  for (Index step = first; step < end && !InterruptScope::requested(); ++step) {
    one_step(outcome, progress);
    if (step + 1 == c.steps) save();  // the last evaluation may take long
    if (evaluation_due()) evaluate(outcome, progress);
    if (c.save_every > 0 && (step + 1) % c.save_every == 0) save();
  }
  if (unsaved_) save();
  outcome.interrupted = InterruptScope::requested() && (trainer_.state().step < end || evaluation_due());
  if (outcome.profile && outcome.interrupted && done_ < kLastProfiled) {
    outcome.profile->interrupted = true;
    train::write_profile(folder_.ops_file(), *outcome.profile);
  }
  return outcome;
}

std::string describe_peak(const StepReport& report) {
  std::string text = format_bytes(report.peak_bytes) + " tracked:";
  for (std::size_t i = 0; i < memory::kCategories; ++i) {
    text += fmt::format("{} {} {}", i == 0 ? "" : ",", memory::to_string(static_cast<memory::Category>(i)),
                        format_bytes(report.at_peak[i]));
  }
  return text;
}

// The kernel and what makes this attention another function than the plain one.
std::string describe_attention(const nn::AttentionConfig& a) {
  std::string text =
      fmt::format("{}, {} positions", a.custom ? "mine" : name_of(a.kernel), name_of(a.positions));
  if (a.window) text += fmt::format(", window {}", *a.window);
  if (a.softcap) text += fmt::format(", softcap {}", *a.softcap);
  if (a.sinks) text += ", sinks";
  return text;
}

void print_summary(std::ostream& out, Trainer& trainer, const Outcome& outcome) {
  const RunConfig& c = trainer.config();
  const nn::TransformerConfig& m = trainer.model().config;
  const auto line = [&](std::string_view what, const std::string& value) {
    out << fmt::format("  {:<12} {}\n", what, value);
  };
  out << fmt::format("{}: {} of {} steps{}\n", c.data_name(), trainer.state().step, c.steps,
                     outcome.interrupted ? ", interrupted" : "");
  line("model", fmt::format("{} layers, {} heads, {} key/value heads, width {}, {} parameters", m.layers,
                            m.attention.heads, m.attention.kv_heads, m.width,
                            nn::count(nn::parameters(trainer.model()))));
  line("attention", describe_attention(m.attention));
  if (outcome.evaluation) {
    const Evaluation& e = *outcome.evaluation;
    line("loss", fmt::format("train {:.4f}, validation {:.4f}", outcome.train_loss, e.loss));
    line("accuracy",
         fmt::format("{:.2f} % of the answers, {:.2f} % of the sequences", 100 * e.accuracy, 100 * e.exact));
  }
  if (!outcome.ms.empty()) {
    const double ms = median(outcome.ms);
    line("speed", fmt::format("{:.2f} ms a step (median), {} tokens/s", ms,
                              format_count(outcome.last.tokens_per_s * outcome.last.ms / ms)));
    line("peak memory", describe_peak(outcome.highest));
  }
  line("results", c.out);
  if (outcome.profile) {
    line("profile", fmt::format("{}{}, in {}", outcome.profile->of,
                                outcome.profile->interrupted ? ", then came the interrupt" : "",
                                RunFolder(c.out).profile_file().string()));
    out << "\n" << format_table(profile_table(std::string(c.data_name()), *outcome.profile));
  }
  out << std::flush;
}

// The same as one JSON object; what is not known is null.
std::string summary_json(Trainer& trainer, const Outcome& outcome) {
  const RunConfig& c = trainer.config();
  const double unknown = std::nan("");
  const auto e =
      outcome.evaluation.value_or(Evaluation{.loss = unknown, .accuracy = unknown, .exact = unknown});
  nlohmann::ordered_json json = {{"out", c.out},
                                 {"step", trainer.state().step},
                                 {"interrupted", outcome.interrupted},
                                 {"parameters", nn::count(nn::parameters(trainer.model()))},
                                 {"train_loss", outcome.evaluation ? outcome.train_loss : unknown},
                                 {"val_loss", e.loss},
                                 {"accuracy", e.accuracy},
                                 {"exact", e.exact},
                                 {"ms_per_step", outcome.ms.empty() ? unknown : median(outcome.ms)},
                                 {"peak_bytes", outcome.highest.peak_bytes}};
  if (outcome.profile) json["profile"] = to_json(*outcome.profile);
  return json_text(json) + "\n";
}

}  // namespace

int run_training(const RunConfig& config, const RunControl& control, const Console& console) {
  TrainingRun run(config, control);
  Trainer& trainer = run.trainer();
  spdlog::info("{} {} with {} parameters, from step {}, into {}", control.resume ? "resuming" : "learning",
               trainer.config().data_name(), nn::count(nn::parameters(trainer.model())), trainer.state().step,
               trainer.config().out);
  const Outcome outcome = run.run(console);
  if (control.summary && control.json) console.out << summary_json(trainer, outcome) << std::flush;
  if (control.summary && !control.json) print_summary(console.out, trainer, outcome);
  return outcome.interrupted ? kInterrupted : kSuccess;
}

}  // namespace tilegrad::train

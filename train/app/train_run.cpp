#include "tilegrad/train/app/train_run.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/base/file.h"
#include "tilegrad/base/interrupt.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/nn/weights.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/app/progress.h"
#include "tilegrad/train/app/run_summary.h"
#include "tilegrad/train/measure/chrome_trace.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/event_file.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/run_command_line.h"
#include "tilegrad/train/run/run_folder.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

namespace {

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
                 control.resume ? MetricsWriter::Start::append : MetricsWriter::Start::empty) {
    if (control.tensorboard) events_.emplace(folder_.events_folder(), trainer_.state().step, wall_time_now());
  }

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
      // Before the folder is touched, which may be the one that the weights are from.
      if (!trainer_.config().from.empty()) weights_at(trainer_.config().from).load(trainer_.model());
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
  bool one_step(Outcome& outcome, Progress& progress);
  bool evaluation_due();
  void evaluate(Outcome& outcome, Progress& progress);
  void save();
  void save_best();
  bool is_last(const Evaluation& evaluation) const;
  std::string stop_reason() const;
  void write_curves() const;

  RunControl control_;
  FolderLock lock_;
  Trainer trainer_;
  RunFolder folder_;
  std::optional<PreviousRun> previous_;
  MetricsWriter metrics_;
  std::optional<EventFile> events_;
  std::optional<Profiler> profiler_;
  Index done_ = 0;        // steps of this call of the program
  bool unsaved_ = false;  // something changed since the last save
};

constexpr Index kLastProfiled = 4;

// The profiler of the next step; nullptr if that step is not to be profiled. The first step's profile is
// dropped as soon as there is a second one, because the first step allocates what later ones reuse.
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

// The state first, so that best.safetensors is never from a step that the run may not reach again.
void TrainingRun::save_best() {
  const TrainState& state = trainer_.state();
  if (!trainer_.config().best || state.step == 0 || state.evaluations.best_step != state.step) return;
  if (unsaved_) save();
  folder_.save_best(trainer_);
}

std::string TrainingRun::stop_reason() const {
  const RunConfig& c = trainer_.config();
  return trainer_.state().step < c.steps
             ? train::stop_reason(c.stop_when, c.patience, trainer_.state().evaluations)
             : "";
}

// Of the second step, because the first one allocates what later ones reuse: gradients and optimiser state.
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
    // The optimiser comes last, so the weights are still those of the step before. They are not worth losing
    // an older run.
    if (unsaved_ && !previous_ && nn::all_finite(nn::parameters(trainer_.model()))) save();
    fail("step {}: {}", number, error.what());
  }
}

// Once an interrupt has come, ends the step at its next op: a step with a large batch may take minutes.
class StopAtNextOp final : public OpListener {
 public:
  struct Stopped {};

 private:
  void begin(std::string_view) override {
    if (InterruptScope::requested()) throw Stopped();
  }
  void end() override {}
  void recorded(std::string_view, Index) override {}
};

// False if an interrupt ended the step. Weights and moments change only after its last op, so nothing has happened then,
// and the step is taken again when the run is resumed. A step that is profiled is never cut short.
bool TrainingRun::one_step(Outcome& outcome, Progress& progress) {
  Profiler* const profiler = next_profiler();
  StopAtNextOp stop;
  const ListenScope listening(stop);
  try {
    outcome.last = step(profiler);
  } catch (const StopAtNextOp::Stopped&) {
    nn::zero_grad(nn::parameters(trainer_.model()));
    return false;
  }
  ++done_;
  unsaved_ = true;
  if (profiler != nullptr) write_profile(outcome);
  outcome.ms.push_back(outcome.last.ms);
  if (outcome.last.peak_bytes > outcome.highest.peak_bytes) outcome.highest = outcome.last;
  metrics_.write(outcome.last);
  if (events_) events_->write(outcome.last, wall_time_now());
  progress.step(outcome.last);
  return true;
}

// Also of a resumed run that was stopped before the evaluation of its last step.
bool TrainingRun::evaluation_due() {
  const TrainState& state = trainer_.state();
  const RunConfig& c = trainer_.config();
  return state.loss_count > 0 && (state.step % c.eval_every == 0 || state.step == c.steps);
}

// Every evaluation uses the same part of the held-out data, which costs little and makes evaluations comparable; the
// last one then uses all of it. An interrupt ends the evaluation, which is done over when the run is resumed.
void TrainingRun::evaluate(Outcome& outcome, Progress& progress) {
  constexpr Index kExamplesOnTheWay = 512;
  const Index step = trainer_.state().step;
  const Evaluation part = trainer_.evaluate(kExamplesOnTheWay, &InterruptScope::requested);
  Evaluation evaluation = part;
  if (!part.whole && is_last(part)) evaluation = trainer_.evaluate(0, &InterruptScope::requested);
  if (InterruptScope::requested()) return;
  outcome.evaluation = evaluation;
  outcome.train_loss = trainer_.record(part);
  unsaved_ = true;
  metrics_.write(step, outcome.train_loss, evaluation);
  if (events_) {
    events_->write({.step = step,
                    .train_loss = outcome.train_loss,
                    .val_loss = evaluation.loss,
                    .accuracy = evaluation.accuracy,
                    .exact = evaluation.exact},
                   wall_time_now());
  }
  progress.evaluation(evaluation);
  save_best();
}

// Whether the run ends with an evaluation that has this result.
bool TrainingRun::is_last(const Evaluation& evaluation) const {
  const RunConfig& c = trainer_.config();
  const Index step = trainer_.state().step;
  EvaluationHistory history = trainer_.state().evaluations;
  history.add(step, evaluation);
  return step == c.steps || !train::stop_reason(c.stop_when, c.patience, history).empty();
}

void TrainingRun::write_curves() const {
  std::vector<std::string> damage;  // loading the run for a report names it
  LoadedRun run = {.name = "loss"};
  run.metrics = read_metrics(folder_.metrics_file(), damage);
  write_file(folder_.curves_file(), curves_csv({std::move(run)}));
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
  save_best();  // an earlier call of the program may not have got that far
  outcome.stopped = stop_reason();
  for (Index step = first; step < end && outcome.stopped.empty() && !InterruptScope::requested(); ++step) {
    if (!one_step(outcome, progress)) break;
    if (step + 1 == c.steps) save();  // the last evaluation may take long
    if (evaluation_due()) evaluate(outcome, progress);
    outcome.stopped = stop_reason();
    if (c.save_every > 0 && (step + 1) % c.save_every == 0) save();
  }
  if (unsaved_) save();
  write_curves();
  outcome.interrupted = InterruptScope::requested() && outcome.stopped.empty() &&
                        (trainer_.state().step < end || evaluation_due());
  if (outcome.profile && outcome.interrupted && done_ < kLastProfiled) {
    outcome.profile->interrupted = true;
    train::write_profile(folder_.ops_file(), *outcome.profile);
  }
  return outcome;
}

}  // namespace

int run_training(const RunConfig& config, const RunControl& control, const Console& console) {
  TrainingRun run(config, control);
  Trainer& trainer = run.trainer();
  spdlog::info("{} {} with {} parameters, from step {}, into {}", control.resume ? "resuming" : "learning",
               trainer.config().data_name(), nn::count(nn::parameters(trainer.model())), trainer.state().step,
               trainer.config().out);
  const Outcome outcome = run.run(console);
  if (control.summary && control.json) print_summary_json(console.out, trainer, outcome);
  if (control.summary && !control.json) print_summary(console.out, trainer, outcome);
  return outcome.interrupted ? kInterrupted : kSuccess;
}

}  // namespace tilegrad::train

#include "tilegrad/train/app/run_summary.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tilegrad/base/format.h"
#include "tilegrad/base/json.h"
#include "tilegrad/nn/module.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/report/numbers.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/report/table.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

std::string describe_peak(const StepReport& report) {
  std::string text = format_bytes(report.peak_bytes) + " tracked:";
  for (std::size_t i = 0; i < memory::kCategories; ++i) {
    text += fmt::format("{} {} {}", i == 0 ? "" : ",", memory::to_string(static_cast<memory::Category>(i)),
                        format_bytes(report.at_peak[i]));
  }
  return text;
}

std::string describe_attention(const nn::AttentionConfig& a) {
  const std::string options = a.options();
  return fmt::format("{}, {} positions{}{}", a.custom ? "mine" : name_of(a.kernel), name_of(a.positions),
                     options.empty() ? "" : ", ", options);
}

}  // namespace

void print_summary(std::ostream& out, Trainer& trainer, const Outcome& outcome) {
  const RunConfig& c = trainer.config();
  const nn::TransformerConfig& m = trainer.model().config;
  const auto line = [&](std::string_view what, const std::string& value) {
    out << fmt::format("  {:<12} {}\n", what, value);
  };
  out << fmt::format("{}: {} of {} steps{}\n", c.data_name(), trainer.state().step, c.steps,
                     outcome.interrupted       ? ", interrupted"
                     : outcome.stopped.empty() ? ""
                                               : ", stopped: " + outcome.stopped);
  line("model", fmt::format("{} layers, {} heads, {} key/value heads, width {}, {} parameters", m.layers,
                            m.attention.heads, m.attention.kv_heads, m.width,
                            nn::count(nn::parameters(trainer.model()))));
  line("attention", describe_attention(m.attention));
  if (outcome.evaluation) {
    line("loss", fmt::format("train {:.4f}, validation {}", outcome.train_loss,
                             describe_loss(outcome.evaluation->loss, c.is_text())));
    line("accuracy", describe_accuracy(*outcome.evaluation, c.is_text()));
  }
  if (const EvaluationHistory& h = trainer.state().evaluations; c.best && h.best_step > 0) {
    line("best",
         fmt::format("validation {} after step {}", describe_loss(h.best_loss, c.is_text()), h.best_step));
  }
  if (!outcome.ms.empty()) {
    const double ms = median(outcome.ms);
    line("speed", fmt::format("{:.2f} ms per step (median), {} tokens/s", ms,
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

void print_summary_json(std::ostream& out, Trainer& trainer, const Outcome& outcome) {
  const RunConfig& c = trainer.config();
  const double unknown = std::nan("");
  const auto e =
      outcome.evaluation.value_or(Evaluation{.loss = unknown, .accuracy = unknown, .exact = unknown});
  nlohmann::ordered_json json = {{"out", c.out},
                                 {"step", trainer.state().step},
                                 {"interrupted", outcome.interrupted},
                                 {"stopped", outcome.stopped},
                                 {"parameters", nn::count(nn::parameters(trainer.model()))},
                                 {"train_loss", outcome.evaluation ? outcome.train_loss : unknown},
                                 {"val_loss", e.loss},
                                 {"accuracy", e.accuracy},
                                 {"exact", e.exact},
                                 {"ms_per_step", outcome.ms.empty() ? unknown : median(outcome.ms)},
                                 {"peak_bytes", outcome.highest.peak_bytes}};
  if (outcome.profile) json["profile"] = to_json(*outcome.profile);
  out << json_text(json) << std::endl;
}

}  // namespace tilegrad::train

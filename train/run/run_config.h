#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "tilegrad/data/task.h"
#include "tilegrad/nn/transformer.h"
#include "tilegrad/train/run/checkpoint_policy.h"
#include "tilegrad/train/run/names.h"
#include "tilegrad/train/run/optimizer.h"

namespace tilegrad::train {

/// Everything that decides a training run. Two runs of one config have the same losses and weights, bit for
/// bit.
struct RunConfig {
  // What is learned: a task, or a text if a file is named.
  data::TaskOptions task = data::TaskOptions::defaults(data::TaskKind::sort);
  std::string text;

  // The model. Its vocabulary comes from the data, its init and what it recomputes from the settings below.
  nn::TransformerConfig model;
  InitKind init = InitKind::gpt2;
  KvInit kv_init = KvInit::fresh;
  CheckpointPolicy checkpoint;
  std::string mine, mine_checkpoint;  // folders of a course, whose code takes the place of the library's

  OptimizerSettings optimizer;
  double lr = 1e-3;
  double min_lr = 1e-4;
  Index warmup = 0;
  LrSchedule schedule = LrSchedule::cosine;
  std::optional<Index> decay;  // steps of the descent of wsd; a fifth of all unless given
  Index accumulate = 1;        // batches whose gradients make one step

  Index steps = 0;
  Index batch = 0;
  Index eval_every = 0;
  Index save_every = 0;  // 0: only at the end
  std::uint64_t seed = 1;
  Index threads = 0;  // 0: as many as there are processors
  bool detect_anomaly = false;
  std::string from;       // run or file whose weights it starts with; empty: with random ones
  bool best = false;      // also keeps the weights with the lowest validation loss
  std::string stop_when;  // a StopRule; empty: none
  Index patience = 0;     // evaluations without a better loss; 0: any number
  std::string out;

  // Not settings but facts about the text, kept so that a run can be sampled from without it, and not resumed
  // with another.
  std::string vocabulary;  // its distinct bytes
  std::uint64_t text_hash = 0;

  bool is_text() const { return !text.empty(); }
  /// The name of the task, or "text".
  std::string_view data_name() const { return is_text() ? "text" : name_of(task.kind); }
  /// `model` with what it takes from elsewhere filled in. Throws if it makes no sense.
  nn::TransformerConfig model_for(Index data_vocabulary) const;
  /// Throws Error with one line on the first setting of checkpoints, the optimiser or the run that makes no
  /// sense; the model and the data check theirs.
  void validate() const;
};

/// One setting as a person sees it: `kv-heads` is the option --kv-heads and the key "kv_heads" of
/// config.json.
struct Setting {
  std::string_view name;
  std::string_view group;
  std::string_view help;
  bool on_resume = false;  ///< may differ when a run is resumed
  bool newer = false;      ///< config.json of older programs lacks it, and its default stands
};

inline constexpr std::string_view kDataGroup = "Data", kModelGroup = "Model", kAttentionGroup = "Attention";

/// Whether a run that starts with the weights of another one (`from`) takes this setting from it unless given.
inline bool comes_with_weights(const Setting& setting) {
  return setting.group == kDataGroup || setting.group == kModelGroup || setting.group == kAttentionGroup;
}

/// Calls f(setting, field of the first config, field of the second ...) for every setting: the one list of
/// them, which the command line, config.json and the presets go through.
template <class F, class... Configs>
void for_each_setting(F&& f, Configs&... c) {
  constexpr std::string_view kData = kDataGroup, kModel = kModelGroup, kAttention = kAttentionGroup;
  constexpr std::string_view kMemory = "Memory", kOptimiser = "Optimiser", kRun = "Run";
  f(Setting{"task", kData, "toy task to learn"}, c.task.kind...);
  f(Setting{"text", kData, "file to learn instead, byte by byte", true}, c.text...);
  f(Setting{"length", kData, "symbols to copy, reverse or sort; digits to add; length of recall, induction"},
    c.task.length...);
  f(Setting{"symbols", kData, "different symbols; keys, and as many values, for recall"}, c.task.symbols...);
  f(Setting{"pairs", kData, "key/value pairs of recall"}, c.task.pairs...);
  f(Setting{"filler", kData, "fill recall's gaps with one token instead of random values"}, c.task.filler...);

  f(Setting{"layers", kModel, "transformer blocks"}, c.model.layers...);
  f(Setting{"width", kModel, "size of a token's vector"}, c.model.width...);
  f(Setting{"context", kModel, "longest sequence in tokens"}, c.model.context...);
  f(Setting{"hidden", kModel, "size inside the mlp; 0: 4 x width (8/3 x for swiglu)"}, c.model.hidden...);
  f(Setting{"mlp", kModel, "activation of the mlp"}, c.model.mlp...);
  f(Setting{"norm", kModel, "normalisation"}, c.model.norm...);
  f(Setting{"positions", kModel, "how positions are encoded"}, c.model.attention.positions...);
  f(Setting{"dropout", kModel, "probability of dropping an activation"}, c.model.dropout...);
  f(Setting{"bias", kModel, "linear layers have a bias"}, c.model.bias...);
  f(Setting{"tie", kModel, "the head shares the token embedding's matrix"}, c.model.tie...);
  f(Setting{"init", kModel, "how weights start: N(0, .02) or N(0, 1) and N(0, .07)"}, c.init...);
  f(Setting{"dtype", kModel, "element type of weights and activations"}, c.model.dtype...);

  f(Setting{"attention", kAttention, "kernel"}, c.model.attention.kernel...);
  f(Setting{"heads", kAttention, "query heads"}, c.model.attention.heads...);
  f(Setting{"kv-heads", kAttention, "key/value heads: as many as heads is MHA, 1 is MQA, between is GQA"},
    c.model.attention.kv_heads...);
  f(Setting{.name = "window",
            .group = kAttention,
            .help = "keys that a query sees before its own position; all unless given",
            .newer = true},
    c.model.attention.window...);
  f(Setting{.name = "softcap",
            .group = kAttention,
            .help = "bound scores smoothly: X tanh(score / X); no bound unless given",
            .newer = true},
    c.model.attention.softcap...);
  f(Setting{.name = "sinks",
            .group = kAttention,
            .help = "a learnable logit for each query head, for attention to nothing",
            .newer = true},
    c.model.attention.sinks...);
  f(Setting{.name = "mine",
            .group = kAttention,
            .help = "folder of a course (./dev learn) whose flash attention is used instead of the kernel",
            .newer = true},
    c.mine...);
  f(Setting{"kv-init", kAttention, "start of shared key/value heads: pooled from those of MHA, or fresh"},
    c.kv_init...);

  f(Setting{"checkpoint", kMemory,
            "recompute activations: none, block, a number of segments, budget:64MiB, attention, mlp, "
            "elementwise"},
    c.checkpoint...);
  f(Setting{.name = "mine-checkpoint",
            .group = kMemory,
            .help = "folder of a course whose checkpoint is used where blocks are checkpointed",
            .newer = true},
    c.mine_checkpoint...);

  f(Setting{"lr", kOptimiser, "highest learning rate"}, c.lr...);
  f(Setting{"min-lr", kOptimiser, "last learning rate; a tenth of the highest unless given"}, c.min_lr...);
  f(Setting{"warmup", kOptimiser, "steps until the highest learning rate"}, c.warmup...);
  f(Setting{.name = "schedule",
            .group = kOptimiser,
            .help = "learning rate after warm-up: down half a cosine, down a line, constant, or constant and "
                    "then down a line (wsd)",
            .newer = true},
    c.schedule...);
  f(Setting{.name = "decay",
            .group = kOptimiser,
            .help = "steps of the descent of wsd; a fifth of all unless given",
            .newer = true},
    c.decay...);
  f(Setting{.name = "optimizer",
            .group = kOptimiser,
            .help = "adamw, adam (without weight decay) or sgd",
            .newer = true},
    c.optimizer.kind...);
  f(Setting{"weight-decay", kOptimiser, "decay of matrices, by adamw and sgd"}, c.optimizer.weight_decay...);
  f(Setting{"beta1", kOptimiser, "decay of the gradient's mean, by adamw and adam"}, c.optimizer.beta1...);
  f(Setting{"beta2", kOptimiser, "decay of the gradient's square, by adamw and adam"}, c.optimizer.beta2...);
  f(
      Setting{
          .name = "momentum", .group = kOptimiser, .help = "decay of sgd's velocity; 0: none", .newer = true},
      c.optimizer.momentum...);
  f(Setting{.name = "nesterov",
            .group = kOptimiser,
            .help = "sgd looks ahead along its velocity",
            .newer = true},
    c.optimizer.nesterov...);
  f(Setting{"clip", kOptimiser, "largest norm of the gradient; 0: no limit"}, c.optimizer.clip...);

  f(Setting{"steps", kRun, "training steps", true}, c.steps...);
  f(Setting{"batch", kRun, "sequences in a step"}, c.batch...);
  f(Setting{.name = "accumulate",
            .group = kRun,
            .help = "batches whose gradients make one step, like that of a batch this many times as large",
            .newer = true},
    c.accumulate...);
  f(Setting{"eval-every", kRun, "steps between evaluations"}, c.eval_every...);
  f(Setting{"save-every", kRun, "steps between saves; 0: only at the end", true}, c.save_every...);
  f(Setting{"seed", kRun, "decides weights, data and dropout"}, c.seed...);
  f(Setting{"threads", kRun, "threads; 0: one for each processor", true}, c.threads...);
  f(Setting{"detect-anomaly", kRun, "look for NaN and Inf after every op, and name the op", true},
    c.detect_anomaly...);
  f(
      Setting{
          .name = "from",
          .group = kRun,
          .help =
              "start with the weights of this run, or of this weight file of a run; data and model are that "
              "run's unless given",
          .newer = true},
      c.from...);
  f(Setting{.name = "best",
            .group = kRun,
            .help = "also keep the weights with the lowest validation loss, in best.safetensors",
            .on_resume = true,
            .newer = true},
    c.best...);
  f(Setting{.name = "stop-when",
            .group = kRun,
            .help = "stop as soon as an evaluation reaches this: accuracy=0.99, exact=1 or val_loss=0.5",
            .on_resume = true,
            .newer = true},
    c.stop_when...);
  f(Setting{.name = "patience",
            .group = kRun,
            .help = "stop after this many evaluations without a lower validation loss; 0: never",
            .on_resume = true,
            .newer = true},
    c.patience...);
  f(Setting{"out", kRun, "folder for the results; runs/<task> unless given"}, c.out...);
}

/// config.json: every setting, and the facts about the text.
nlohmann::ordered_json to_json(const RunConfig& config);

/// Reads a whole config.json. Throws Error "<where>: ..." if a setting is missing, unknown or of the wrong
/// type.
RunConfig config_from_json(std::string_view text, std::string_view where);

/// Reads those settings that the text has into `config`, and returns their names. Throws Error "<where>: ..."
/// as config_from_json() does.
std::set<std::string_view> settings_from_json(std::string_view text, std::string_view where,
                                              RunConfig& config);

}  // namespace tilegrad::train

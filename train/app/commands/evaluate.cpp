#include <memory>
#include <nlohmann/json.hpp>

#include "tilegrad/base/json.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/threads.h"
#include "tilegrad/train/app/weights_option.h"
#include "tilegrad/train/report/numbers.h"
#include "tilegrad/train/run/dataset.h"

namespace tilegrad::train {

namespace {

struct EvaluateOptions {
  explicit EvaluateOptions(CLI::App& app) {
    weights.add(app);
    text_option =
        app.add_option("--text", text, "evaluate on this whole text instead of the run's held-out data");
    add_threads(app, threads);
    app.add_flag("--json", json, "print a JSON object");
  }

  WeightsOption weights;
  std::string text;
  bool json = false;
  int threads = 0;
  CLI::Option* text_option = nullptr;
};

void print(std::ostream& out, const std::string& title, const Evaluation& e, bool is_text) {
  out << fmt::format("{}\n  {:<12} {}\n  {:<12} {}\n", title, "loss", describe_loss(e.loss, is_text),
                     "accuracy", describe_accuracy(e, is_text));
}

int evaluate_run(const EvaluateOptions& options, const Console& console) {
  const SavedWeights weights = options.weights.find();
  RunConfig config = weights.folder.read_config();
  const bool other_text = options.text_option->count() > 0;
  check(!other_text || config.is_text(), "evaluate: {} learned {}, which --text has no effect on",
        options.weights.run, config.data_name());
  use_threads(options.threads);
  const auto data = other_text ? make_held_out_text(config, options.text) : make_dataset(config);
  nn::Transformer model(config.model_for(data->vocabulary()), RandomKey{config.seed}.fold(kWeights));
  weights.load(model);
  const Evaluation e = evaluate(model, *data);
  const bool is_text = config.is_text();
  const std::string data_name = other_text ? options.text
                                : is_text  ? "the held-out tenth of " + config.text
                                           : "held-out examples of " + std::string(config.data_name());
  if (options.json) {
    nlohmann::ordered_json json = {{"weights", weights.file.string()},
                                   {"data", data_name},
                                   {"val_loss", e.loss},
                                   {"accuracy", e.accuracy},
                                   {"exact", e.exact}};
    if (is_text) json["bits_per_byte"] = bits_of(e.loss);
    console.out << json_text(json) << std::endl;
  } else {
    print(console.out, fmt::format("{} on {}", weights.file.string(), data_name), e, is_text);
  }
  return kSuccess;
}

}  // namespace

Command add_evaluate_command(CLI::App& program) {
  CLI::App* app =
      program.add_subcommand("evaluate", "the loss and accuracy of a trained run on held-out data");
  const auto options = std::make_shared<EvaluateOptions>(*app);
  return {app, [options](const Console& console) { return evaluate_run(*options, console); }};
}

}  // namespace tilegrad::train

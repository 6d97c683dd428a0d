#include <algorithm>
#include <memory>

#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/app/run_options.h"
#include "tilegrad/train/app/weights_option.h"
#include "tilegrad/train/report/look_page.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/evaluation.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

struct LookOptions {
  explicit LookOptions(CLI::App& app) {
    weights.add(app);
    prompt_option = app.add_option(
        "--prompt", prompt, "what the model reads: text, or symbols of the task with spaces between them");
    app.add_option("--example", example, "number of a held-out example that it reads")
        ->transform(decimal<Index>())
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str()
        ->excludes(prompt_option);
    app.add_option("--tokens", tokens, "how many tokens of it to show, at most")
        ->transform(decimal<Index>())
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--out", out, "page to write")->capture_default_str();
  }

  WeightsOption weights;
  std::string prompt, out = "look.html";
  Index example = 0, tokens = 128;
  CLI::Option* prompt_option = nullptr;
};

// A prompt as a batch: of a text it is known what follows each token but the last.
data::Batch batch_of(std::vector<std::int32_t> tokens, bool is_text) {
  check(!tokens.empty(), "look: the prompt has no symbol");
  data::Batch batch = {.batch = 1, .time = std::ssize(tokens), .tokens = std::move(tokens), .targets = {}};
  batch.targets.assign(batch.tokens.size(), data::kIgnored);
  if (is_text) std::copy(batch.tokens.begin() + 1, batch.tokens.end(), batch.targets.begin());
  return batch;
}

data::Batch example_of(const data::Dataset& data, Index number) {
  const Index count = data.validation_batches(1);
  check(number < count, "look: --example is {}, the held-out examples are 0 to {}", number, count - 1);
  return data.validation(number, 1);
}

// The first tokens. Attention is causal, so nothing changes in what is left.
data::Batch cut(data::Batch batch, Index tokens) {
  batch.time = std::min(batch.time, tokens);
  batch.tokens.resize(batch.time);
  batch.targets.resize(batch.time);
  return batch;
}

// Each token as one visible word or sign.
std::vector<std::string> symbols_of(const data::Codec& codec, bool is_text) {
  std::vector<std::string> symbols;
  for (std::int32_t token = 0; token < codec.vocabulary(); ++token) {
    std::string symbol = codec.decode(token);
    if (is_text) {
      symbol = visible_byte(static_cast<unsigned char>(symbol[0]));
    } else {
      symbol.pop_back();  // the space after it
    }
    symbols.push_back(std::move(symbol));
  }
  return symbols;
}

// Over many examples if there are any at hand, which says more about a head than one sequence.
void score(Look& look, const data::Dataset* data, bool is_text) {
  constexpr Index kExamples = 64;
  HeadScorer scorer(look.model);
  if (data == nullptr) {
    scorer.add(look.inspection, look.sequence);
    look.scored = "this sequence";
  } else {
    const Index count = std::min(kExamples, data->validation_batches(1));
    for (Index i = 0; i < count; ++i) {
      const data::Batch batch = data->validation(i, 1);
      scorer.add(inspect(look.model, tokens_of(batch)), batch);
    }
    look.scored = fmt::format("{} held-out examples", count);
  }
  look.scores = scorer.scores();
  if (!is_text) return;
  for (HeadScores& s : look.scores) s.induction_at_answers.reset();  // every position of a text is asked for
}

std::string describe(const nn::TransformerConfig& model) {
  const nn::AttentionConfig& attention = model.attention;
  const std::string options = attention.options();
  return fmt::format("{} layers, {} heads, {} key/value heads, {} positions{}{}", model.layers,
                     attention.heads, attention.kv_heads, name_of(attention.positions),
                     options.empty() ? "" : ", ", options);
}

int look_at(const LookOptions& options, const std::string& command, const Console& console) {
  const SavedWeights weights = options.weights.find();
  RunConfig config = weights.folder.read_config();
  const bool is_text = config.is_text(), prompted = options.prompt_option->count() > 0;
  // A task draws its examples anew; those of a text need its file.
  const auto data = prompted && is_text ? nullptr : make_dataset(config);
  const auto codec = make_codec(config);
  nn::Transformer model(config.model_for(codec->vocabulary()), RandomKey{config.seed}.fold(kWeights));
  weights.load(model);
  const data::Batch whole =
      prompted ? batch_of(codec->encode(options.prompt), is_text) : example_of(*data, options.example);

  Look look = {
      .model = model, .symbols = symbols_of(*codec, is_text), .sequence = cut(whole, options.tokens)};
  look.inspection = inspect(model, tokens_of(look.sequence));
  score(look, data.get(), is_text);
  Report report = look_page(look);
  const std::string source = prompted ? "a prompt" : fmt::format("held-out example {}", options.example);
  report.title =
      fmt::format("{}: {} of {}", weights.folder.path().filename().string(), source, config.data_name());
  report.facts = {{"weights", weights.file.string()},
                  {"model", describe(model.config)},
                  {"shown", fmt::format("{} of {} tokens", look.sequence.time, whole.time)},
                  {"scores", "means over " + look.scored},
                  {"command", command}};
  if (!config.mine.empty()) {
    report.facts.emplace_back(
        "attention", "by the formula, from q and k of the model; the learner's code has no part in it");
  }
  write_report(options.out, report);
  console.out << fmt::format("{}\n{}\npage: {}\n", format_table(heads_table(look)), report.finding,
                             options.out)
              << std::flush;
  return kSuccess;
}

}  // namespace

Command add_look_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand(
      "look", "attention and predictions of a trained run, on one sequence, as a page");
  const auto options = std::make_shared<LookOptions>(*app);
  return {app, [app, options](const Console& console) {
            return look_at(*options, "tilegrad look" + given_options(*app, {"out"}), console);
          }};
}

}  // namespace tilegrad::train

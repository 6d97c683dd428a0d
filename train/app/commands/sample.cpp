#include <iostream>
#include <memory>
#include <sstream>
#include <vector>

#include "tilegrad/base/file.h"
#include "tilegrad/nn/generate.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/app/threads.h"
#include "tilegrad/train/app/weights_option.h"
#include "tilegrad/train/run/dataset.h"

namespace tilegrad::train {

namespace {

struct SampleOptions {
  explicit SampleOptions(CLI::App& app) {
    weights.add(app);
    CLI::Option* prompt_option = app.add_option(
        "--prompt", prompt, "what to continue: text, or symbols of the task with spaces between them");
    app.add_option("--prompts", prompts,
                   "a file with one prompt per line, or - for standard input; each is continued")
        ->excludes(prompt_option);
    app.add_option("--tokens", tokens, "tokens to generate; 200 for text, the answer for a task")
        ->transform(decimal<Index>())
        ->check(CLI::NonNegativeNumber);
    app.add_option("--temperature", temperature,
                   "0 takes the likeliest token, 1 draws with the model's probabilities")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--top-k", top_k, "draw from the k likeliest tokens; 0: from all")
        ->transform(decimal<Index>())
        ->check(CLI::NonNegativeNumber);
    app.add_option("--seed", seed, "seed of what is drawn")->transform(decimal<std::uint64_t>());
    add_threads(app, threads);
  }

  WeightsOption weights;
  std::string prompt, prompts;
  Index tokens = -1;
  double temperature = 0;
  Index top_k = 0;
  std::uint64_t seed = 1;
  int threads = 0;
};

// The lines of a file, or of standard input, without the empty ones.
std::vector<std::string> lines_of(const std::string& file) {
  std::istringstream text(file == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {})
                                      : read_file(file));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  check(!lines.empty(), "sample: {}: holds no prompt", file == "-" ? "standard input" : file);
  return lines;
}

void continue_prompt(const SampleOptions& options, const RunConfig& config, const nn::Transformer& model,
                     const data::Codec& codec, const std::vector<std::int32_t>& prompt,
                     const Console& console) {
  check(!prompt.empty(), "sample: the prompt has no symbol");
  Index count = options.tokens;
  if (count < 0 && config.is_text()) count = 200;
  if (count < 0) count = std::max<Index>(1, config.task.context() + 1 - std::ssize(prompt));

  for (const std::int32_t token : prompt) console.out << codec.decode(token);
  if (!config.is_text()) console.out << "-> ";
  nn::generate(model, prompt, count,
               {.temperature = options.temperature,
                .top_k = options.top_k,
                .key = RandomKey{options.seed}.fold(kSampling)},
               [&](std::int32_t token) {
                 console.out << codec.decode(token) << std::flush;
                 return console.out.good();
               });
  console.out << std::endl;
  check(console.out.good(), "sample: the output cannot be written");
}

int sample(const SampleOptions& options, const Console& console) {
  use_threads(options.threads);
  const SavedWeights weights = options.weights.find();
  const RunConfig config = weights.folder.read_config();
  const auto codec = make_codec(config);
  nn::Transformer model(config.model_for(codec->vocabulary()), RandomKey{config.seed}.fold(kWeights));
  weights.load(model);

  if (options.prompts.empty()) {
    const auto prompt = options.prompt.empty() ? codec->default_prompt() : codec->encode(options.prompt);
    continue_prompt(options, config, model, *codec, prompt, console);
    return kSuccess;
  }
  for (const std::string& line : lines_of(options.prompts)) {
    continue_prompt(options, config, model, *codec, codec->encode(line), console);
  }
  return kSuccess;
}

}  // namespace

Command add_sample_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("sample", "generate from a trained run");
  const auto options = std::make_shared<SampleOptions>(*app);
  return {app, [options](const Console& console) { return sample(*options, console); }};
}

}  // namespace tilegrad::train

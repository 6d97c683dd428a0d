#include <memory>
#include <vector>

#include "tilegrad/nn/generate.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

struct SampleOptions {
  explicit SampleOptions(CLI::App& app) {
    app.add_option("run,--run", run, "folder of a trained run")->required();
    app.add_option("--prompt", prompt,
                   "what to continue: text, or symbols of the task with spaces between them");
    app.add_option("--tokens", tokens, "how many to generate; 200 for text, the answer for a task")
        ->transform(decimal<Index>())
        ->check(CLI::NonNegativeNumber);
    app.add_option("--temperature", temperature, "0 takes the likeliest token, 1 draws as the model says")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--top-k", top_k, "draw among the k likeliest tokens; 0: among all")
        ->transform(decimal<Index>())
        ->check(CLI::NonNegativeNumber);
    app.add_option("--seed", seed, "decides what is drawn")->transform(decimal<std::uint64_t>());
  }

  std::string run, prompt;
  Index tokens = -1;
  double temperature = 0;
  Index top_k = 0;
  std::uint64_t seed = 1;
};

int sample(const SampleOptions& options, const Console& console) {
  const RunFolder folder(options.run);
  const RunConfig config = folder.read_config();
  const auto codec = make_codec(config);
  nn::Transformer model(config.model_for(codec->vocabulary()), RandomKey{config.seed}.fold(kWeights));
  folder.load_model(model);

  const auto prompt = options.prompt.empty() ? codec->default_prompt() : codec->encode(options.prompt);
  check(!prompt.empty(), "sample: the prompt has no symbol");
  Index count = options.tokens;
  if (count < 0 && config.is_text()) count = 200;
  if (count < 0) count = std::max<Index>(1, config.task.context() + 1 - std::ssize(prompt));

  for (const std::int32_t token : prompt) console.out << codec->decode(token);
  if (!config.is_text()) console.out << "-> ";
  nn::generate(model, prompt, count,
               {.temperature = options.temperature,
                .top_k = options.top_k,
                .key = RandomKey{options.seed}.fold(kSampling)},
               [&](std::int32_t token) {
                 console.out << codec->decode(token) << std::flush;
                 return console.out.good();
               });
  console.out << std::endl;
  check(console.out.good(), "sample: the output cannot be written");
  return kSuccess;
}

}  // namespace

Command add_sample_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("sample", "generate from a trained run");
  const auto options = std::make_shared<SampleOptions>(*app);
  return {app, [options](const Console& console) { return sample(*options, console); }};
}

}  // namespace tilegrad::train

#include <doctest/doctest.h>

#include <cmath>

#include "tests/train/run_program.h"
#include "tilegrad/train/report/look_page.h"
#include "tilegrad/train/run/evaluation.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

nn::Transformer tiny_model(AttentionKernel kernel) {
  return {{.vocabulary = 7,
           .context = 8,
           .layers = 2,
           .width = 16,
           .attention = {.heads = 4, .kv_heads = 2, .kernel = kernel, .window = 4, .sinks = true},
           .init = {.embedding = 0.5, .linear = 0.4}},
          RandomKey{3}};
}

data::Batch batch_of(std::vector<std::int32_t> tokens) {
  data::Batch batch = {.batch = 1, .time = std::ssize(tokens), .tokens = tokens, .targets = {}};
  batch.targets.assign(tokens.size(), data::kIgnored);
  return batch;
}

// Probabilities that are 0 but for these: head, query, key, value.
struct Entry {
  Index head, query, key;
  float value;
};
Inspection made_inspection(Index heads, Index time, const std::vector<Entry>& entries) {
  Tensor p = Tensor::zeros({1, heads, time, time}, Dtype::f32);
  for (const Entry& e : entries) p.mut<float>()[(e.head * time + e.query) * time + e.key] = e.value;
  return {.attention = {{.p = p, .lse = Tensor::zeros({1, heads, time}, Dtype::f32)}}};
}

std::vector<HeadScores> scores_of(const Inspection& inspection, const data::Batch& batch, Index heads) {
  const nn::Transformer model(
      {.vocabulary = 10, .context = 8, .layers = 1, .width = 8, .attention = {.heads = heads, .kv_heads = 1}},
      RandomKey{1});
  HeadScorer scorer(model);
  scorer.add(inspection, batch);
  return scorer.scores();
}

std::string trained(const TemporaryFolder& folder, std::vector<std::string> more = {}) {
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run, std::move(more))).code == 0);
  return run;
}

}  // namespace

TEST_CASE("look: the lens ends with the model's own logits, to the bit, and sees every layer") {
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    const nn::Transformer model = tiny_model(kernel);
    const data::Batch batch = batch_of({1, 2, 3, 1, 2, 6, 0, 1});
    const Inspection inspection = inspect(model, tokens_of(batch));
    REQUIRE(inspection.lens.size() == 3);
    REQUIRE(inspection.attention.size() == 2);
    const Tensor logits = model(tokens_of(batch), {}).value();
    bool all_same = true, differs_before = false;
    for (Index i = 0; i < logits.size(); ++i) {
      all_same = all_same && inspection.lens[2].at(i) == logits.at(i);
      differs_before = differs_before || inspection.lens[1].at(i) != logits.at(i);
    }
    CHECK(all_same);
    CHECK(differs_before);
  }
}

TEST_CASE("look: the share of a sink is what is missing from the sum of a row") {
  nn::Transformer model = tiny_model(AttentionKernel::flash);
  for (nn::Block& block : model.blocks)
    block.attention.sinks.value() = Tensor::from<float>({4}, {0, 1, -2, 3});
  const data::Batch batch = batch_of({1, 2, 3, 1, 2, 6});
  const Inspection inspection = inspect(model, tokens_of(batch));
  for (Index layer = 0; layer < 2; ++layer) {
    const AttentionProbabilities& attention = inspection.attention[layer];
    const Tensor shares = sink_shares(model.blocks[layer].attention, attention);
    REQUIRE(shares.size() == 4 * 6);
    for (Index row = 0; row < shares.size(); ++row) {
      double sum = 0;
      for (Index s = 0; s < 6; ++s) sum += attention.p.at(row * 6 + s);
      CHECK(shares.at(row) == doctest::Approx(1 - sum).epsilon(1e-5));
    }
  }
  CHECK(!sink_shares(nn::Attention(), inspection.attention[0]).defined());
}

TEST_CASE(
    "look: the induction score is the mean of what goes to the token after the last earlier occurrence") {
  // Query 3 (token 4) looks back to place 0, so its key is 1; query 5 (token 5) to place 1, key 2; query 6 (token 4) to
  // place 3, key 4. Nobody before has a token that came before.
  data::Batch batch = batch_of({4, 5, 6, 4, 7, 5, 4});
  batch.targets[6] = 7;
  const auto scores =
      scores_of(made_inspection(2, 7,
                                {{0, 3, 1, 0.5f},
                                 {0, 5, 2, 0.25f},
                                 {0, 6, 4, 0.75f},
                                 {0, 6, 1, 0.125f},  // after an occurrence, but not the last one
                                 {1, 3, 2, 1},
                                 {1, 6, 5, 0.5f},
                                 {1, 6, 6, 0.25f},
                                 {1, 0, 0, 1}}),
                batch, 2);
  REQUIRE(scores.size() == 2);
  CHECK(*scores[0].induction == 0.5);
  CHECK(*scores[0].induction_at_answers == 0.75);
  CHECK(*scores[1].induction == 0);
  CHECK(scores[1].head == 1);
  CHECK(scores[1].kv_head == 0);
  CHECK(*scores[1].previous == 1.5 / 6);
  CHECK(scores[1].self == 1.25 / 7);
  CHECK(scores[1].first == 1.0 / 7);
  CHECK(!scores[1].sink);
  CHECK(best_induction_head(scores) == &scores[0]);
}

TEST_CASE("look: a token that follows itself is not looked up at itself") {
  // Queries 1 and 2: the key after the place before is the query's own. Query 2 has an occurrence two places back.
  const Inspection inspection = made_inspection(1, 3, {{0, 1, 1, 1}, {0, 2, 2, 0.75f}, {0, 2, 1, 0.25f}});
  CHECK(*scores_of(inspection, batch_of({3, 3, 3}), 1)[0].induction == 0.25);
  const auto none = scores_of(inspection, batch_of({3, 3, 4}), 1);
  CHECK(!none[0].induction);
  CHECK(best_induction_head(none) == nullptr);
}

TEST_CASE("look: the page has the probabilities, the lens and the scores, and the terminal the scores") {
  const TemporaryFolder folder;
  const std::string run = trained(folder, {"--kv-heads", "1", "--window", "3", "--sinks"}),
                    page = folder / "look.html";
  const Output output = run_program({"look", run, "--example", "3", "--out", page});
  CHECK(output.err.empty());
  REQUIRE(output.code == 0);
  CHECK(output.out.find("induction score") != std::string::npos);
  CHECK(output.out.find("layer 2, head 2") != std::string::npos);
  CHECK(output.out.find(" has the highest induction score, 0.") != std::string::npos);
  const nlohmann::json report = data_of(read_file(page));
  const nlohmann::json& view = report["attention"];
  CHECK(report["title"] == "run: held-out example 3 of sort");
  CHECK(view["window"] == 3);
  CHECK(view["layers"].size() == 2);
  for (const auto& layer : view["layers"]) {
    for (const auto& head : layer) {
      CHECK(head["kv_head"] == 0);
      for (std::size_t t = 0; t < view["tokens"].size(); ++t) {
        CHECK(head["p"][t].size() == std::min<std::size_t>(t + 1, 4));
        int sum = head["sink"][t];
        for (const int p : head["p"][t]) sum += p;
        CHECK(std::abs(sum - 10000) <= 3);
      }
    }
  }
  const nlohmann::json& lens = report["lens"];
  CHECK(lens["stages"] == nlohmann::json({"embedding", "layer 1", "layer 2"}));
  CHECK(lens["guesses"][2].size() == view["tokens"].size());
  CHECK(lens["guesses"][2][0][0]["p"] >= lens["guesses"][2][0][1]["p"]);
  CHECK(report["tables"][0]["rows"].size() == 4);
}

TEST_CASE("look: a prompt is read instead of an example, and cut") {
  const TemporaryFolder folder;
  const std::string run = trained(folder), page = folder / "look.html";
  REQUIRE(run_program({"look", run, "--prompt", "2 1 0 2", "--tokens", "3", "--out", page}).code == 0);
  const nlohmann::json report = data_of(read_file(page));
  CHECK(report["attention"]["tokens"] == nlohmann::json({"2", "1", "0"}));
  CHECK(report["lens"]["next"] == nlohmann::json({"", "", ""}));
}

TEST_CASE("look: a text needs its file for examples and not for a prompt, and shows what cannot be seen") {
  const TemporaryFolder folder;
  const std::string text = folder / "text", run = folder / "run", page = folder / "look.html";
  std::string lines;
  for (int i = 0; i < 60; ++i) lines += "ab ab\xE4\n";
  write_file(text, lines);
  REQUIRE(run_program({"train", "--text", text, "--layers", "1", "--heads", "2", "--width", "8", "--context",
                       "8", "--steps", "2", "--out", run, "--quiet"})
              .code == 0);
  REQUIRE(run_program({"look", run, "--out", page}).code == 0);
  std::filesystem::remove(text);
  check_error({"look", run, "--out", page}, 1, text);
  REQUIRE(run_program({"look", run, "--prompt", "b a\xE4\n", "--out", page}).code == 0);
  const nlohmann::json report = data_of(read_file(page));
  CHECK(report["attention"]["tokens"] == nlohmann::json({"b", "␣", "a", "\\xE4", "⏎"}));
  CHECK(report["lens"]["next"] == nlohmann::json({"␣", "a", "\\xE4", "⏎", ""}));
  CHECK(report["finding"] == "no token comes twice, so no head has an induction score");
}

TEST_CASE("look: wrong arguments are one line") {
  const TemporaryFolder folder;
  const std::string run = trained(folder), page = folder / "look.html";
  check_error({"look", folder / "none"}, 1, "config.json");
  check_error({"look", run, "--example", "512", "--out", page}, 1,
              "look: --example is 512, the held-out examples are 0 to 511");
  check_error({"look", run, "--example", "-1"}, 2, "--example");
  check_error({"look", run, "--prompt", "1", "--example", "1"}, 2, "--prompt excludes --example");
  check_error({"look", run, "--prompt", "", "--out", page}, 1, "look: the prompt has no symbol");
  check_error({"look", run, "--prompt", "x", "--out", page}, 1, "sort: `x` is not one of its symbols: 0 1 2");
  check_error({"look", run, "--tokens", "0"}, 2, "--tokens");
  check_error({"look", run, "--out", folder / "none/look.html"}, 1, "look.html");
  CHECK(!std::filesystem::exists(page));
}

#include "tilegrad/train/labs/heads_lab.h"

#include <doctest/doctest.h>

#include "tests/train/lab_output.h"
#include "tilegrad/train/labs/heads_measure.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("lab heads: fewer key/value heads keep less, and compute what repeated heads compute" *
          doctest::test_suite("slow")) {
  const TemporaryFolder folder;
  const HeadsLab lab = {.seq = 48,
                        .head_size = 8,
                        .heads = 4,
                        .kv_heads = 2,
                        .layers = 2,
                        .tokens = 8,
                        .steps = 8,
                        .seeds = 2,
                        .convert = true,
                        .repeats = 1};
  const LabOutput output = run_lab(folder / "lab", "heads", [&](const auto& options, const auto& console) {
    return run_heads_lab(lab, options, console);
  });
  check_published(output, 3);
  const Json &mha = output.row(0), &gqa = output.row(1), &mqa = output.row(2);
  CHECK(mha.at("kv_bytes_per_token") == 2 * gqa.at("kv_bytes_per_token").get<Index>());
  CHECK(mha.at("kv_bytes_per_token") == 4 * mqa.at("kv_bytes_per_token").get<Index>());
  for (const char* number : {"parameters", "peak_bytes", "decoding_peak_bytes"}) {
    CAPTURE(number);
    CHECK(mha.at(number) > gqa.at(number));
    CHECK(gqa.at(number) > mqa.at(number));
  }
  for (const Json& row : output.json.at("rows")) {
    CHECK(row.at("sharing_difference") == 0);
    CHECK(row.at("peak_rss_bytes") > row.at("peak_bytes"));
    CHECK(row.at("accuracy") > 0);
    CHECK(row.at("accuracy") <= 1);
    CHECK(row.at("seeds") == 2);
    CHECK(row.at("accuracy_deviation") > 0);
    CHECK(row.contains("steps_to_threshold"));
    if (row.at("threshold").is_null()) continue;
    CHECK(row.at("steps_to_threshold") >= 1);
    CHECK(row.at("steps_to_threshold") <= 8);
  }
  const Json& conversions = output.json.at("details").at("conversions");
  REQUIRE(conversions.size() == 2);
  for (const Json& conversion : conversions) {
    const Json& losses = conversion.at("losses");
    REQUIRE(losses.size() == 5);
    CHECK(losses[0] == conversions[0].at("losses")[0]);  // the same MHA
    CHECK(losses[1] != losses[0]);
    CHECK(losses[2] != losses[1]);
  }
}

TEST_CASE("lab heads: the threshold is the highest tenth up to 90 % that every training reaches") {
  const Learning quick = {.steps = {10, 20, 25}, .accuracies = {0.5, 0.95, 0.93}};
  const Learning slow = {.steps = {10, 20, 25}, .accuracies = {0.05, 0.3, 0.72}};
  CHECK(common_threshold({quick}) == 0.9);
  CHECK(common_threshold({quick, slow}) == 0.7);
  CHECK(common_threshold({quick, {.steps = {10}, .accuracies = {0.09}}}) == 0);
  CHECK(steps_to(quick, 0.9) == 20);
  CHECK(steps_to(quick, 0.5) == 10);
  CHECK(steps_to(slow, 0.7) == 25);
  CHECK(steps_to(slow, 0.9) == 0);
}

TEST_CASE("lab heads: the curve of a training has at most 50 points and ends with its last step") {
  CHECK(steps_of_curve(7) == std::vector<Index>{1, 2, 3, 4, 5, 6, 7});
  CHECK(steps_of_curve(50).size() == 50);
  const std::vector<Index> seldom = steps_of_curve(61);
  CHECK(seldom.size() == 31);
  CHECK(seldom.front() == 2);
  CHECK(seldom.back() == 61);
  const Learning learning = measure_learning({.heads = 2, .kv_heads = 1, .steps = 2});
  CHECK(learning.steps == std::vector<Index>{1, 2});
  REQUIRE(learning.accuracies.size() == 2);
  CHECK(learning.accuracies.back() == learning.accuracy);
  CHECK(learning.step_seconds > 0);
  CHECK(learning.evaluation_seconds > 0);
  CHECK(HeadsLab().seeds >= 5);  // nothing is found by fewer
}

TEST_CASE("lab heads: pooling heads that nobody shares changes nothing") {
  const std::vector<double> losses = measure_conversion({.heads = 2, .kv_heads = 2, .steps = 10}).losses;
  CHECK(losses[1] == losses[0]);
  CHECK(losses[4] < losses[1]);
}

TEST_CASE("lab heads: misuse is reported in one line") {
  const TemporaryFolder folder;
  const std::string out = folder / "lab";
  check_error({"lab", "heads", "--gqa-groups", "3", "--out", out}, kFailure,
              "3 key/value heads do not divide 8 heads");
  check_error({"lab", "heads", "--seq", "64", "--out", out}, kFailure,
              "64 tokens to decode, must be from 2 to seq - 1");
  CHECK_FALSE(std::filesystem::exists(out));
}

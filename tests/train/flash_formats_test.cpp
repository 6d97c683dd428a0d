#include <doctest/doctest.h>

#include <algorithm>

#include "tests/train/lab_output.h"
#include "tilegrad/train/labs/flash_lab.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("lab flash: bf16 halves what tensors take, and its error is that of the storage") {
  const TemporaryFolder folder;
  const auto run = [&](Dtype dtype) {
    const FlashLab lab = {.heads = 4, .seq = 256, .head_size = 32, .dtype = dtype, .repeats = 1};
    return run_lab(
        folder / std::string(to_string(dtype)), "flash",
        [&](const auto& options, const auto& console) { return run_flash_lab(lab, options, console); });
  };
  const LabOutput f32 = run(Dtype::f32), bf16 = run(Dtype::bf16);
  check_published(bf16, 4);
  CHECK(bf16.json.at("configuration").at("dtype") == "bf16");
  for (const std::size_t row : {2, 3}) {  // flash, forward alone and with backward
    CHECK(bf16.row(row).at("peak_bytes") < f32.row(row).at("peak_bytes"));
    CHECK(bf16.row(row).at("moved_bytes") < f32.row(row).at("moved_bytes"));
  }
  for (const Json& row : bf16.json.at("details").at("accuracy")) {
    CAPTURE(row.dump());
    CHECK(row.at("flash_error") > 1e-4);
    CHECK(row.at("flash_error") < .1);
    CHECK(row.at("flash_error").get<double>() <= 2 * row.at("naive_error").get<double>());
  }
}

namespace {

LabOutput compare_formats(const std::string& folder, double input_std) {
  const FlashLab lab = {.heads = 2,
                        .seq = 96,
                        .head_size = 16,
                        .formats = {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::f64},
                        .input_std = input_std,
                        .repeats = 1};
  return run_lab(folder, "flash", [&](const auto& options, const auto& console) {
    return run_flash_lab(lab, options, console);
  });
}

}  // namespace

TEST_CASE("lab flash: formats side by side, with bytes, times and errors of each") {
  const TemporaryFolder folder;
  const LabOutput output = compare_formats(folder / "lab", 1);
  check_published(output, 4);
  const Json& formats = output.json.at("details").at("formats");
  REQUIRE(formats.size() == 4);
  const Json &f32 = formats[0], &bf16 = formats[1], &f16 = formats[2], &f64 = formats[3];
  CHECK(f32.at("dtype") == "f32");
  CHECK(f32.at("qkv_bytes") == 3 * 2 * 96 * 16 * 4);
  for (const Json& narrow : {bf16, f16}) {
    CHECK(2 * narrow.at("qkv_bytes").get<Index>() == f32.at("qkv_bytes"));
    CHECK(narrow.at("overflows") == 0);
  }
  CHECK(f32.at("overflows").is_null());  // nothing is rounded to 16 bits
  for (const char* error : {"out_error", "dq_error", "dk_error", "dv_error"}) {
    CAPTURE(error);
    CHECK(f64.at(error) < 1e-13);
    CHECK(f64.at(error) < f32.at(error));
    CHECK(f32.at(error) < 1e-5);
    CHECK(f16.at(error) > 1e-5);
    CHECK(f16.at(error) < bf16.at(error));  // it has three bits more
    CHECK(bf16.at(error) < .1);
  }
  for (const Json& row : formats) CHECK(row.at("forward_ms") > 0);
  CHECK(output.text.find("Number formats") != std::string::npos);
  const auto finding = output.json.at("finding").get<std::string>();
  CHECK(finding.find("largest relative error of out and gradients: f32 ") != std::string::npos);
  CHECK(finding.find("overflowed") == std::string::npos);
  const Json charts = data_of(output.html).at("charts");
  const auto digits = std::find_if(charts.begin(), charts.end(), [](const Json& chart) {
    return chart.at("title") == "Digits that are right, by number format";
  });
  REQUIRE(digits != charts.end());
  CHECK(digits->at("series").size() == 4);
}

TEST_CASE("lab flash: what overflows in f16 is counted, and its error is infinite") {
  const TemporaryFolder folder;
  const LabOutput output = compare_formats(folder / "lab", 3e4);  // some numbers are beyond 65504
  const Json& formats = output.json.at("details").at("formats");
  CHECK(formats[1].at("overflows") == 0);  // bf16 has the range of f32
  CHECK(formats[1].at("dq_error").is_number());
  const auto overflows = formats[2].at("overflows").get<Index>();
  CHECK(overflows > 0);
  for (const char* error : {"out_error", "dq_error", "dk_error", "dv_error"})
    CHECK(formats[2].at(error).is_null());  // JSON has no Inf
  CHECK(output.text.find(fmt::format("f16 overflowed {} times", overflows)) != std::string::npos);
  CHECK(output.json.at("configuration").at("input_std") == 3e4);
}

TEST_CASE("lab flash: in f16 alone, numbers that overflow do not end it") {
  const TemporaryFolder folder;
  const FlashLab lab = {.seq = 32, .head_size = 8, .dtype = Dtype::f16, .input_std = 3e4, .repeats = 1};
  const LabOutput output = run_lab(folder / "lab", "flash", [&](const auto& options, const auto& console) {
    return run_flash_lab(lab, options, console);
  });
  check_published(output, 4);
  CHECK(output.json.at("details").at("accuracy").at(1).at("flash_error").is_null());
}

TEST_CASE("lab flash: the bytes of q, k and v are those of fewer keys, too") {
  const TemporaryFolder folder;
  const FlashLab lab = {
      .heads = 2, .seq = 64, .head_size = 8, .formats = {Dtype::f32, Dtype::f16}, .repeats = 1, .kv_seq = 16};
  const LabOutput output = run_lab(folder / "lab", "flash", [&](const auto& options, const auto& console) {
    return run_flash_lab(lab, options, console);
  });
  const Json& formats = output.json.at("details").at("formats");
  CHECK(formats[0].at("qkv_bytes") == (64 + 2 * 16) * 2 * 8 * 4);
  CHECK(formats[1].at("qkv_bytes") == (64 + 2 * 16) * 2 * 8 * 2);
}

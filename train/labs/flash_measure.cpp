#include "tilegrad/train/labs/flash_measure.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/narrow.h"
#include "tilegrad/train/measure/attention_workload.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/measure/tensor_difference.h"
#include "tilegrad/train/run/mine.h"

namespace tilegrad::train {

namespace {

AttentionWorkload workload_of(const FlashTask& task, Dtype dtype) {
  AttentionProblem problem = task.problem();
  problem.dtype = dtype;
  return {problem, RandomKey{task.seed}, {.std = task.input_std}};
}

template <class F>
Index peak_of(F&& f) {
  memory::reset_peak();
  f();
  return memory::usage().peak;
}

// out, dq, dk, dv.
std::vector<Tensor> results_of(const FlashTask& task, AttentionKernel kernel, Dtype dtype) {
  AttentionWorkload::Results results = workload_of(task, dtype).step(kernel);
  results.grads.insert(results.grads.begin(), results.out);
  return results.grads;
}

double error_of(const nlohmann::json& json, const char* key) {
  const nlohmann::json& error = json.at(key);
  return error.is_null() ? std::numeric_limits<double>::infinity() : error.get<double>();
}

}  // namespace

void to_json(nlohmann::json& json, const FormatErrors& e) {
  json = {{"out", e.out}, {"dq", e.dq}, {"dk", e.dk}, {"dv", e.dv}, {"overflows", e.overflows}};
}
void from_json(const nlohmann::json& json, FormatErrors& e) {
  e = {.out = error_of(json, "out"),
       .dq = error_of(json, "dq"),
       .dk = error_of(json, "dk"),
       .dv = error_of(json, "dv"),
       .overflows = json.at("overflows").get<Index>()};
}

void to_json(nlohmann::json& json, const TensorErrors& e) {
  json = {{"tensor", e.tensor},
          {"max_abs_difference", e.max_abs_difference},
          {"max_rel_difference", e.max_rel_difference},
          {"naive_error", e.naive_error},
          {"flash_error", e.flash_error}};
}
void from_json(const nlohmann::json& json, TensorErrors& e) {
  e = {.tensor = json.at("tensor").get<std::string>(),
       .max_abs_difference = error_of(json, "max_abs_difference"),
       .max_rel_difference = error_of(json, "max_rel_difference"),
       .naive_error = error_of(json, "naive_error"),
       .flash_error = error_of(json, "flash_error")};
}

AttentionProblem FlashTask::problem() const {
  const auto side = [](Index keys) { return keys < 0 ? std::optional<Index>() : keys; };
  // Inputs of any size have the scores that inputs of size 1 have: larger ones would leave the softmax without a gradient.
  std::optional<double> scale;
  if (input_std != 1) scale = 1 / (std::sqrt(static_cast<double>(head_size)) * input_std * input_std);
  return {.batch = batch,
          .heads = heads,
          .kv_heads = heads,
          .tq = seq,
          .tk = kv_seq > 0 ? kv_seq : seq,
          .head_size = head_size,
          .dtype = dtype,
          .options = {.causal = causal,
                      .window = {.left = side(window_left), .right = side(window_right)},
                      .scale = scale,
                      .tiles = {.queries = tile_q, .keys = tile_k}}};
}

AttentionCosts measure_attention(const FlashTask& task, const CallTimer& timer) {
  if (task.memory_limit > 0) memory::set_limit(task.memory_limit);
  try {
    const AttentionWorkload workload = workload_of(task, task.dtype);
    const auto mine = task.mine.empty() ? nn::AttentionFunction() : mine_attention(task.mine);
    const auto forward = [&] { mine ? workload.forward(mine) : workload.forward(task.kernel); };
    const auto step = [&] { mine ? workload.step(mine) : workload.step(task.kernel); };
    forward();  // makes the scratch memory that threads keep
    return {.forward_peak = peak_of(forward),
            .step_peak = peak_of(step),
            .forward_ms = timer.time("forward", forward),
            .step_ms = timer.time("step", step)};
  } catch (const memory::OutOfMemory&) {
    return {.fits = false};
  }
}

Accuracy measure_accuracy(const FlashTask& task) {
  const auto naive = results_of(task, AttentionKernel::naive, task.dtype);
  const auto flash = results_of(task, AttentionKernel::flash, task.dtype);
  const auto exact = results_of(task, AttentionKernel::naive, Dtype::f64);
  Accuracy accuracy;
  for (const char* tensor : {"out", "dq", "dk", "dv"}) {
    const std::size_t i = accuracy.tensors.size();
    const double difference = largest_difference(naive[i], flash[i]);
    accuracy.tensors.push_back({.tensor = tensor,
                                .max_abs_difference = difference,
                                .max_rel_difference = difference / largest_magnitude(exact[i]),
                                .naive_error = largest_difference(naive[i], exact[i]),
                                .flash_error = largest_difference(flash[i], exact[i])});
  }
  return accuracy;
}

FormatErrors measure_format(const FlashTask& task) {
  const Index before = kernels::overflow_count();
  const auto stored = results_of(task, AttentionKernel::flash, task.dtype);
  const Index overflows = kernels::overflow_count() - before;
  const auto exact = results_of(task, AttentionKernel::naive, Dtype::f64);
  const auto error = [&](std::size_t i) {
    return largest_difference(stored[i], exact[i]) / largest_magnitude(exact[i]);
  };
  return {.out = error(0), .dq = error(1), .dk = error(2), .dv = error(3), .overflows = overflows};
}

MachineSpeeds measure_machine(const FlashTask&) {
  const auto tries = [](double (*speed)()) {
    std::vector<double> speeds(10);
    std::generate(speeds.begin(), speeds.end(), speed);
    return speeds;
  };
  return {.f32_gflops = tries(fma_gflops<float>),
          .f64_gflops = tries(fma_gflops<double>),
          .gbytes_per_s = {read_bandwidth()},
          .l2_bytes = l2_bytes(),
          .processor = processor_name()};
}

}  // namespace tilegrad::train

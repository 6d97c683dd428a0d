#pragma once

#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tilegrad/base/error.h"
#include "tilegrad/data/task.h"
#include "tilegrad/nn/transformer.h"

/// How choices are spelled on the command line and in config.json.
namespace tilegrad::train {

template <class E>
struct Named {
  E value;
  std::string_view name;
};

/// How embeddings and linear weights start: gpt2 draws both from N(0, .02²); associative draws embeddings
/// from N(0, 1) and linear weights from N(0, .07²), without which the associative tasks stay at chance.
enum class InitKind { gpt2, associative };

/// How the key/value projections of GQA and MQA start: as the means of the heads that the same seed gives
/// MHA, or drawn afresh.
enum class KvInit { pooled, fresh };

/// What makes a step of a gradient: adamw is Adam with decoupled weight decay, adam that without any decay, and sgd
/// gradient descent, which may have momentum.
enum class OptimizerKind { adamw, adam, sgd };

/// How the learning rate goes on after warm-up (train/run/learning_rate.h).
enum class LrSchedule { cosine, linear, constant, wsd };

/// All values of a choice with their names, as pairs.
template <class E>
inline constexpr Named<E> kNames[] = {};
template <>
inline constexpr auto& kNames<data::TaskKind> = data::kTasks;
template <>
inline constexpr Named<nn::MlpKind> kNames<nn::MlpKind>[] = {
    {nn::MlpKind::gelu, "gelu"}, {nn::MlpKind::relu, "relu"}, {nn::MlpKind::swiglu, "swiglu"}};
template <>
inline constexpr Named<nn::NormKind> kNames<nn::NormKind>[] = {{nn::NormKind::layernorm, "layernorm"},
                                                               {nn::NormKind::rmsnorm, "rmsnorm"}};
template <>
inline constexpr Named<nn::PositionEncoding> kNames<nn::PositionEncoding>[] = {
    {nn::PositionEncoding::learned, "learned"},
    {nn::PositionEncoding::rope, "rope"},
    {nn::PositionEncoding::alibi, "alibi"}};
template <>
inline constexpr Named<AttentionKernel> kNames<AttentionKernel>[] = {{AttentionKernel::naive, "naive"},
                                                                     {AttentionKernel::flash, "flash"}};
template <>
inline constexpr Named<Align> kNames<Align>[] = {{Align::bottom_right, "bottom_right"},
                                                 {Align::top_left, "top_left"}};
template <>
inline constexpr Named<nn::Recompute> kNames<nn::Recompute>[] = {{nn::Recompute::nothing, "none"},
                                                                 {nn::Recompute::attention, "attention"},
                                                                 {nn::Recompute::mlp, "mlp"},
                                                                 {nn::Recompute::elementwise, "elementwise"}};
template <>
inline constexpr Named<Dtype> kNames<Dtype>[] = {{Dtype::f32, "f32"}, {Dtype::f64, "f64"}};
template <>
inline constexpr Named<InitKind> kNames<InitKind>[] = {{InitKind::gpt2, "gpt2"},
                                                       {InitKind::associative, "associative"}};
template <>
inline constexpr Named<KvInit> kNames<KvInit>[] = {{KvInit::pooled, "pooled"}, {KvInit::fresh, "fresh"}};
template <>
inline constexpr Named<OptimizerKind> kNames<OptimizerKind>[] = {
    {OptimizerKind::adamw, "adamw"}, {OptimizerKind::adam, "adam"}, {OptimizerKind::sgd, "sgd"}};
template <>
inline constexpr Named<LrSchedule> kNames<LrSchedule>[] = {{LrSchedule::cosine, "cosine"},
                                                           {LrSchedule::linear, "linear"},
                                                           {LrSchedule::constant, "constant"},
                                                           {LrSchedule::wsd, "wsd"}};

template <class E>
std::string_view name_of(E value) {
  for (const auto& [known, name] : kNames<E>) {
    if (known == value) return name;
  }
  return "?";
}

template <class E>
std::vector<std::string> all_names() {
  std::vector<std::string> out;
  for (const auto& [value, name] : kNames<E>) out.emplace_back(name);
  return out;
}

/// Throws, listing the choices, if there is none of that name; `what` names the setting.
template <class E>
E value_of(std::string_view what, std::string_view name) {
  for (const auto& [value, known] : kNames<E>) {
    if (known == name) return value;
  }
  fail("{}: `{}` is not one of {}", what, name, fmt::join(all_names<E>(), ", "));
}

}  // namespace tilegrad::train

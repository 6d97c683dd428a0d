#include "tilegrad/train/report/attention_view.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

long ten_thousandths(double p) { return std::lround(1e4 * p); }

ordered_json rows_of(const AttentionView& view, const AttentionView::Head& head) {
  auto rows = ordered_json::array();
  const Index time = std::ssize(view.tokens);
  for (Index query = 0; query < time; ++query) {
    auto row = ordered_json::array();
    const Index first = view.window ? std::max<Index>(0, query - *view.window) : 0;
    for (Index key = first; key <= query; ++key) row.push_back(ten_thousandths(head.p[query * time + key]));
    rows.push_back(std::move(row));
  }
  return rows;
}

ordered_json head_json(const AttentionView& view, const AttentionView::Head& head) {
  ordered_json sink;
  for (const double share : head.sink) sink.push_back(ten_thousandths(share));
  return {{"kv_head", head.kv_head},
          {"notes", head.notes},
          {"p", rows_of(view, head)},
          {"sink", std::move(sink)}};
}

}  // namespace

ordered_json to_json(const AttentionView& view) {
  auto layers = ordered_json::array();
  for (const auto& heads : view.layers) {
    auto& layer = layers.emplace_back(ordered_json::array());
    for (const AttentionView::Head& head : heads) layer.push_back(head_json(view, head));
  }
  return {{"tokens", view.tokens},
          {"window", view.window ? ordered_json(*view.window) : ordered_json()},
          {"layers", std::move(layers)},
          {"shown", {{"layer", view.shown_layer}, {"head", view.shown_head}, {"query", view.shown_query}}}};
}

ordered_json to_json(const LensView& view) {
  auto stages = ordered_json::array();
  for (const auto& positions : view.guesses) {
    auto& stage = stages.emplace_back(ordered_json::array());
    for (const auto& guesses : positions) {
      auto& list = stage.emplace_back(ordered_json::array());
      for (const auto& [token, p] : guesses)
        list.push_back({{"token", token}, {"p", 1e-4 * std::round(1e4 * p)}});
    }
  }
  return {{"tokens", view.tokens},
          {"next", view.next},
          {"stages", view.stages},
          {"guesses", std::move(stages)},
          {"shown", view.shown_position}};
}

}  // namespace tilegrad::train

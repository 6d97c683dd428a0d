#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tilegrad/base/index.h"

/// What a page draws of the inside of a model that has read T tokens.
namespace tilegrad::train {

/// The probabilities of causal attention, a heat map a head.
struct AttentionView {
  struct Head {
    Index kv_head = 0;                    ///< heads of a layer with the same one share its keys and values
    std::vector<std::string> notes = {};  ///< a few words each, below the map
    std::vector<double> p = {};           ///< (T, T), a row a query
    std::vector<double> sink = {};  ///< (T), the share of each row that the sink takes; empty: there is none
  };
  std::vector<std::string> tokens = {};        ///< as they are shown
  std::vector<std::vector<Head>> layers = {};  ///< all with as many heads
  std::optional<Index> window = {};  ///< how many positions a query looks back; to the first one unless given
  Index shown_layer = 0, shown_head = 0, shown_query = 0;  ///< at first
};

/// The likeliest next tokens, as the model's head reads them from the residual stream at each stage.
struct LensView {
  struct Guess {
    std::string token = {};
    double probability = 0;
  };
  std::vector<std::string> tokens = {};
  std::vector<std::string> next = {};    ///< (T) what really follows each; empty where nobody knows
  std::vector<std::string> stages = {};  ///< "embedding", "layer 1", ...
  std::vector<std::vector<std::vector<Guess>>> guesses = {};  ///< a stage, a position, the likeliest first
  Index shown_position = 0;                                   ///< at first
};

/// For the page. Probabilities are rounded to ten-thousandths; of each query only the keys that it may see are written.
nlohmann::ordered_json to_json(const AttentionView& view);
nlohmann::ordered_json to_json(const LensView& view);

}  // namespace tilegrad::train

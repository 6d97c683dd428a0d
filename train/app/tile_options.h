#pragma once

#include <array>

#include "tilegrad/base/index.h"
#include "tilegrad/train/app/decimal.h"

namespace tilegrad::train {

/// The options --tile-q and --tile-k. 0, which cannot be given, lets flash choose.
inline std::array<CLI::Option*, 2> add_tile_sizes(CLI::App& app, Index& queries, Index& keys) {
  const auto add = [&](const char* name, Index& field, const char* what) {
    return app.add_option(name, field, std::string(what) + " in a tile of flash; it chooses unless given")
        ->transform(decimal<Index>())
        ->check(CLI::PositiveNumber);
  };
  return {add("--tile-q", queries, "queries"), add("--tile-k", keys, "keys")};
}

}  // namespace tilegrad::train

#include "tilegrad/kernels/attention/tile_walk.h"

#include <doctest/doctest.h>

#include <map>

#include "tilegrad/kernels/attention/flash.h"
#include "tilegrad/kernels/attention/schedule.h"

using namespace tilegrad;
using namespace tilegrad::kernels;

namespace {

// Whether query i sees key j; the last query stands at the last key.
bool sees(const WalkSizes& sizes, const AttentionOptions& options, Index i, Index j) {
  const Index distance = j - (i + sizes.tk - sizes.tq);
  if (options.causal && distance > 0) return false;
  if (options.window.right && distance > *options.window.right) return false;
  return !options.window.left || distance >= -*options.window.left;
}

TileState state_of(const WalkSizes& sizes, const AttentionOptions& options, const TileVisit& v) {
  Index seen = 0;
  for (Index i = v.first_query; i < v.first_query + v.queries; ++i)
    for (Index j = v.first_key; j < v.first_key + v.keys; ++j) seen += sees(sizes, options, i, j);
  return seen == 0 ? TileState::skipped : seen == v.queries * v.keys ? TileState::full : TileState::cut;
}

// Each visible pair of each head is in one tile, and every tile is what it is said to be.
void check_walk(const TileWalk& walk, const WalkSizes& sizes, const AttentionOptions& options) {
  std::map<std::array<Index, 4>, int> visits;
  for (const TileTask& task : walk.tasks) {
    for (const TileVisit& v : task.visits) {
      CHECK(v.state == state_of(sizes, options, v));
      CHECK(v.queries <= walk.tile.queries);
      CHECK(v.keys <= walk.tile.keys);
      for (Index i = v.first_query; i < v.first_query + v.queries; ++i)
        for (Index j = v.first_key; j < v.first_key + v.keys; ++j)
          if (sees(sizes, options, i, j)) ++visits[{task.batch, v.head, i, j}];
    }
  }
  Index pairs = 0;
  for (Index i = 0; i < sizes.tq; ++i)
    for (Index j = 0; j < sizes.tk; ++j) pairs += sees(sizes, options, i, j);
  CHECK(std::ssize(visits) == pairs * sizes.batch * sizes.heads);
  for (const auto& [pair, count] : visits) CHECK(count == 1);
}

}  // namespace

TEST_CASE("tile walk: every visible pair is in one tile, forward and backward") {
  const WalkSizes sizes = {.batch = 2, .tq = 41, .tk = 41, .heads = 4, .kv_heads = 2, .dim = 8};
  for (AttentionOptions options : {AttentionOptions{}, AttentionOptions{.causal = true},
                                   AttentionOptions{.causal = true, .window = {.left = 9}}}) {
    options.tiles = {.queries = 8, .keys = 16};
    CAPTURE(options.causal);
    check_walk(forward_walk(sizes, options), sizes, options);
    check_walk(backward_walk(sizes, options, 3), sizes, options);
  }
}

TEST_CASE("tile walk: windows leave no pair out and take none twice, whichever sides they have") {
  const WalkSizes sizes = {.batch = 1, .tq = 41, .tk = 50, .heads = 2, .kv_heads = 2, .dim = 8};
  for (const Window window : {Window{.left = 5}, Window{.right = 3}, Window{.left = 7, .right = 2}}) {
    for (const bool causal : {false, true}) {
      CAPTURE(causal);
      AttentionOptions options = {.causal = causal, .window = window};
      check_walk(forward_walk(sizes, options), sizes, options);
      options.tiles = {.queries = 8, .keys = 12};
      check_walk(forward_walk(sizes, options), sizes, options);
      check_walk(backward_walk(sizes, options, 2), sizes, options);
    }
  }
}

TEST_CASE("tile walk: a window cuts the tiles at its two ends and leaves those between them") {
  const WalkSizes sizes = {.batch = 1, .tq = 64, .tk = 64, .heads = 1, .kv_heads = 1, .dim = 8};
  const AttentionOptions options = {
      .causal = true, .window = {.left = 24}, .tiles = {.queries = 8, .keys = 8}};
  const TileWalk walk = forward_walk(sizes, options);
  const std::vector<TileVisit>& last = walk.tasks.front().visits;
  REQUIRE(last.size() == 4);
  CHECK(last[0].first_key == 32);  // 56 - 24
  CHECK(last[0].state == TileState::cut);
  CHECK(last[1].state == TileState::full);
  CHECK(last[2].state == TileState::full);
  CHECK(last[3].state == TileState::cut);
}

TEST_CASE("tile walk: a few queries split the keys into parts, which hold every key once") {
  const Index one_panel = flash_micro_kernel(float{}).lanes;
  for (const Index queries : {Index{1}, Index{3}, one_panel}) {
    CAPTURE(queries);
    const WalkSizes sizes = {.batch = 2, .tq = queries, .tk = 700, .heads = 4, .kv_heads = 2, .dim = 8};
    for (const AttentionOptions& options :
         {AttentionOptions{.causal = true}, AttentionOptions{.causal = true, .window = {.left = 400}}}) {
      const TileWalk walk = forward_walk(sizes, options);
      CHECK(walk.parts > 1);
      if (queries <= 3) CHECK(walk.parts == num_splits(2, 700));  // decode: one sequence in each batch row
      check_walk(walk, sizes, options);
      for (std::size_t n = 0; n < walk.tasks.size(); ++n)
        CHECK(walk.tasks[n].part == static_cast<Index>(n) % walk.parts);
    }
  }
}

TEST_CASE("tile walk: what is stored in bf16 is never decoded, but in tiles of queries") {
  const WalkSizes sizes = {
      .batch = 1, .tq = 1, .tk = 600, .heads = 6, .kv_heads = 3, .dim = 8, .widened = true};
  const TileWalk walk = forward_walk(sizes, {});
  check_walk(walk, sizes, {});
  CHECK(walk.tasks.front().visits.front().head == 0);
  CHECK(walk.tasks.back().visits.back().head == 5);
  CHECK(std::ssize(walk.tasks) == 3 * walk.parts);  // two heads share a panel
}

TEST_CASE("tile walk: a causal mask skips, cuts and leaves tiles") {
  const WalkSizes sizes = {.batch = 1, .tq = 32, .tk = 32, .heads = 1, .kv_heads = 1, .dim = 8};
  const TileWalk walk = forward_walk(sizes, {.causal = true, .tiles = {.queries = 16, .keys = 8}});
  REQUIRE(walk.tasks.size() == 2);
  // The last tile of queries has the most work and comes first.
  CHECK(walk.tasks[0].visits.size() == 4);
  CHECK(walk.tasks[0].visits[0].first_query == 16);
  CHECK(walk.tasks[0].visits[1].state == TileState::full);
  CHECK(walk.tasks[0].visits[3].state == TileState::cut);
  CHECK(walk.tasks[1].visits.size() == 2);
}

TEST_CASE("tile walk: a task goes to the thread that is free first") {
  TileWalk walk;
  for (const std::size_t tiles : {4, 1, 2, 1})
    walk.tasks.push_back({.batch = 0, .visits = std::vector<TileVisit>(tiles)});
  const auto turns = turns_of(walk, 2);
  const std::vector<int> threads = {0, 1, 1, 1};
  const std::vector<Index> first = {0, 0, 1, 3};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(turns[i].thread == threads[i]);
    CHECK(turns[i].first_turn == first[i]);
  }
}

#include "tilegrad/kernels/attention/schedule.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

using namespace tilegrad;
using namespace tilegrad::kernels;

namespace {

struct Problem {
  std::string name;
  ProblemShape shape;
};

Problem problem(std::string name, ProblemShape shape, const AttentionOptions& options = {},
                std::initializer_list<std::int32_t> k_lengths = {},
                std::initializer_list<std::int32_t> cu_q = {},
                std::initializer_list<std::int32_t> cu_k = {}) {
  const std::vector<std::int32_t> lengths = k_lengths, q = cu_q, k = cu_k;
  shape.packed = !q.empty();
  shape.tiles = options.tiles;
  shape.sequences = find_sequences(shape, options, lengths, q, k);
  return {std::move(name), std::move(shape)};
}

std::vector<Problem> problems() {
  const ProblemShape small = {
      .batch = 2, .tq = 37, .tk = 45, .heads = 4, .kv_heads = 2, .dim = 8, .dim_v = 8};
  const ProblemShape row = {.batch = 1, .tq = 37, .tk = 45, .heads = 4, .kv_heads = 2, .dim = 8, .dim_v = 8};
  const AttentionOptions tiles = {.tiles = {8, 16}}, causal = {.causal = true, .tiles = {8, 16}};
  return {
      problem("default tiles", small),
      problem("small tiles", small, tiles),
      problem("causal", small, causal),
      problem("causal from the top left", small,
              {.causal = true, .align = Align::top_left, .tiles = {8, 16}}),
      problem("queries above the keys",
              {.batch = 1, .tq = 45, .tk = 7, .heads = 3, .kv_heads = 1, .dim = 8, .dim_v = 8}, causal),
      problem("window", small, {.window = {.left = 5, .right = 2}, .tiles = {4, 4}}),
      problem("window of none", small, {.causal = true, .window = {.left = 0}, .tiles = {3, 5}}),
      problem("padding", small, causal, {45, 0}),
      problem("more padding", small, tiles, {3, 33}),
      problem("packed", row, causal, {}, {0, 10, 10, 37}, {0, 20, 25, 45}),
      problem("packed, without keys", row, tiles, {}, {0, 10, 37}, {0, 0, 45}),
      problem("one query", {.batch = 1, .tq = 1, .tk = 999, .heads = 6, .kv_heads = 2, .dim = 8, .dim_v = 8}),
      problem("few queries",
              {.batch = 1, .tq = 3, .tk = 700, .heads = 5, .kv_heads = 1, .dim = 8, .dim_v = 8}),
      problem("large heads",
              {.batch = 1, .tq = 600, .tk = 300, .heads = 1, .kv_heads = 1, .dim = 300, .dim_v = 9}),
      problem("no keys", {.batch = 1, .tq = 5, .tk = 0, .heads = 2, .kv_heads = 1, .dim = 8, .dim_v = 8}),
      problem("no queries", {.batch = 1, .tq = 0, .tk = 5, .heads = 2, .kv_heads = 1, .dim = 8, .dim_v = 8}),
  };
}

/// How often each pair (b, h, i, j) is met.
class PairCounts {
 public:
  explicit PairCounts(const ProblemShape& shape)
      : shape_(shape), counts_(shape.batch * shape.heads * shape.tq * shape.tk) {}

  void add_visible(const Sequence& s, Index h, Range queries, Range keys) {
    for (Index i = queries.begin; i < queries.end; ++i) {
      const Range visible = s.keys_of(i);
      for (Index j = std::max(keys.begin, visible.begin); j < std::min(keys.end, visible.end); ++j)
        ++counts_[((s.b * shape_.heads + h) * shape_.tq + i) * shape_.tk + j];
    }
  }
  static PairCounts expected(const ProblemShape& shape) {
    PairCounts all(shape);
    for (const Sequence& s : shape.sequences) {
      for (Index h = 0; h < shape.heads; ++h) all.add_visible(s, h, s.queries(), s.keys());
    }
    return all;
  }
  bool operator==(const PairCounts& other) const { return counts_ == other.counts_; }
  Index largest() const {
    Index largest = 0;
    for (const Index n : counts_) largest = std::max(largest, n);
    return largest;
  }

 private:
  const ProblemShape& shape_;
  std::vector<Index> counts_;
};

}  // namespace

TEST_CASE("attention schedule: forward visits every visible pair of query and key exactly once") {
  for (const Problem& p : problems()) {
    for (const Index panel : {2, 16, 32}) {
      CAPTURE(p.name);
      CAPTURE(panel);
      const ForwardSchedule schedule(p.shape, {.lanes = panel, .few_registers = panel == 16});
      PairCounts counts(p.shape);
      for (Index n = 0; n < schedule.tasks(); ++n) {
        const auto task = schedule.task(n);
        CHECK(task.heads * task.queries.size() <= schedule.panels_per_tile() * panel);
        CHECK(task.h / p.shape.group_size() == task.hkv);
        CHECK((task.h + task.heads - 1) / p.shape.group_size() == task.hkv);
        const Range keys = task.sequence->keys_of(task.queries);
        for (Index split = 0; split < schedule.splits(); ++split) {
          for (Index h = task.h; h < task.h + task.heads; ++h)
            counts.add_visible(*task.sequence, h, task.queries, split_of(keys, split, schedule.splits()));
        }
      }
      const PairCounts expected = PairCounts::expected(p.shape);
      CHECK(expected.largest() <= 1);
      CHECK(counts == expected);
    }
  }
}

TEST_CASE("attention schedule: backward visits every visible pair of query and key exactly once") {
  for (const Problem& p : problems()) {
    for (const int threads : {1, 2, 3, 8}) {
      for (const bool dbias : {false, true}) {
        CAPTURE(p.name);
        CAPTURE(threads);
        CAPTURE(dbias);
        const BackwardSchedule schedule(p.shape, {.lanes = 16, .few_registers = dbias}, {.wanted = dbias},
                                        threads);
        PairCounts counts(p.shape);
        for (const auto& task : schedule.tasks()) {
          const SequenceTile& keys = schedule.key_tiles()[task.key_tile];
          const Range tiles = schedule.query_tiles_of(keys);
          const Index group = p.shape.group_size();
          for (Index n = tiles.begin; n < tiles.end; ++n) {
            for (Index h = task.hkv * group; h < (task.hkv + 1) * group; ++h)
              counts.add_visible(p.shape.sequences[keys.sequence], h, schedule.query_tiles()[n].rows,
                                 keys.rows);
          }
        }
        CHECK(counts == PairCounts::expected(p.shape));
      }
    }
  }
}

TEST_CASE("attention schedule: the tickets of a tile of dQ are 0, 1, 2, ... in the order of tasks") {
  for (const Problem& p : problems()) {
    for (const int threads : {1, 2, 3, 8}) {
      CAPTURE(p.name);
      CAPTURE(threads);
      const BackwardSchedule schedule(p.shape, {.lanes = 16}, {}, threads);
      std::vector<Index> next(schedule.dq_tiles());  // in the order of tasks, so nobody waits for a later one
      bool in_order = true;
      for (const auto& task : schedule.tasks()) {
        const SequenceTile& keys = schedule.key_tiles()[task.key_tile];
        const Range tiles = schedule.query_tiles_of(keys);
        const Index group = p.shape.group_size();
        for (Index n = tiles.begin; n < tiles.end; ++n) {
          for (Index h = task.hkv * group; h < (task.hkv + 1) * group; ++h) {
            const Ticket ticket = schedule.dq_ticket(keys, n, h);
            in_order = in_order && ticket.number == next[ticket.tile]++;
          }
        }
      }
      CHECK(in_order);
      for (Index n = 0; n < std::ssize(schedule.query_tiles()); ++n) {
        for (Index h = 0; h < p.shape.heads; ++h)
          CHECK((next[n * p.shape.heads + h] == 0) == schedule.unseen(schedule.query_tiles()[n]));
      }
    }
  }
}

TEST_CASE("attention schedule: the tickets of a tile of dbias are 0, 1, 2, ... in the order of tasks") {
  for (const Problem& p : problems()) {
    for (const bool over_batch : {false, true}) {
      for (const bool over_heads : {false, true}) {
        CAPTURE(p.name);
        CAPTURE(over_batch);
        CAPTURE(over_heads);
        const BackwardSchedule schedule(
            p.shape, {.lanes = 16}, {.wanted = true, .over_batch = over_batch, .over_heads = over_heads}, 4);
        std::vector<Index> next(schedule.dbias_tiles());
        bool in_order = true;
        for (const auto& task : schedule.tasks()) {
          const Index group = p.shape.group_size();
          for (Index h = task.hkv * group; h < (task.hkv + 1) * group; ++h) {
            const Ticket ticket = schedule.dbias_ticket(schedule.key_tiles()[task.key_tile], h);
            in_order = in_order && ticket.number == next[ticket.tile]++;
          }
        }
        CHECK(in_order);
      }
    }
  }
}

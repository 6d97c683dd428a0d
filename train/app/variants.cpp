#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>

#include "tilegrad/train/app/compare_runs.h"
#include "tilegrad/train/app/comparison_folder.h"

namespace tilegrad::train {

namespace {

// Half of the heads, or the largest number below it that divides them and is more than 1; 0 if there is none.
Index default_gqa_heads(Index heads) {
  for (Index kv_heads = heads / 2; kv_heads > 1; --kv_heads) {
    if (heads % kv_heads == 0) return kv_heads;
  }
  return 0;
}

// "mha-flash-ckpt" -> mha, flash, ckpt
std::vector<std::string> split(const std::string& name) {
  std::vector<std::string> words;
  std::size_t begin = 0;
  for (std::size_t end; (end = name.find('-', begin)) != std::string::npos; begin = end + 1) {
    words.push_back(name.substr(begin, end - begin));
  }
  words.push_back(name.substr(begin));
  return words;
}

Variant make_variant(const RunConfig& base, const std::string& name, Index gqa_heads) {
  Variant variant = {.name = name, .config = base};
  RunConfig& c = variant.config;
  const std::map<std::string, Index> kv_heads = {
      {"mha", base.model.attention.heads}, {"gqa", gqa_heads}, {"mqa", 1}};
  const auto words = split(name);
  const auto heads = kv_heads.find(words[0]);
  std::size_t next = 1;
  const auto take = [&](std::string_view word) {
    const bool found = next < words.size() && words[next] == word;
    if (found) ++next;
    return found;
  };
  c.model.attention.kernel = take("naive") ? AttentionKernel::naive : AttentionKernel::flash;
  const bool mine = c.model.attention.kernel == AttentionKernel::flash && !take("flash") && take("mine");
  const bool checkpointed = take("ckpt"), mine_checkpoint = checkpointed && take("mine");
  check(heads != kv_heads.end() && next == words.size(),
        "compare: `{}` is not a variant: mha, gqa or mqa, then perhaps -naive, -flash or -mine, then perhaps "
        "-ckpt or -ckpt-mine",
        name);
  check(!base.mine.empty() || !(mine || mine_checkpoint),
        "compare: {} needs --mine DIR, the folder of a course (./dev learn start DIR)", name);
  c.mine = mine ? base.mine : "";
  c.mine_checkpoint = mine_checkpoint ? base.mine : "";
  c.model.attention.kv_heads = heads->second;
  const CheckpointPolicy none;
  if (!checkpointed) c.checkpoint = none;
  if (checkpointed && c.checkpoint == none) c.checkpoint = EveryBlock{};
  return variant;
}

// A config of the grid with each kind of attention in turn; unchanged if none is named.
std::vector<Variant> variants_of(const Variant& point, const ComparisonOptions& options) {
  if (options.variants.empty()) return {point};
  const Index heads = point.config.model.attention.heads;
  const Index gqa_heads = options.gqa_heads > 0 ? options.gqa_heads : default_gqa_heads(heads);
  std::vector<Variant> variants;
  for (const std::string& name : options.variants) {
    Variant variant = make_variant(point.config, name, gqa_heads);
    if (variant.config.model.attention.kv_heads == 0) {
      check(!options.keep_all, "compare: {}: {} heads have no divisor between 1 and themselves", name, heads);
      spdlog::info("{} left out: {} heads have no divisor between 1 and themselves", name, heads);
      continue;
    }
    if (!point.name.empty()) variant.name += "," + point.name;
    variants.push_back(std::move(variant));
  }
  return variants;
}

}  // namespace

std::vector<Variant> make_variants(const RunConfig& base, const ComparisonOptions& options) {
  std::vector<Variant> grid = options.grid;
  if (grid.empty()) grid.push_back({.name = "", .config = base});
  std::vector<Variant> all;
  for (const Variant& point : grid) {
    for (Variant& variant : variants_of(point, options)) {
      const bool twice = std::any_of(all.begin(), all.end(),
                                     [&](const Variant& other) { return other.name == variant.name; });
      check(!twice, "compare: the variant {} is named twice", variant.name);
      all.push_back(std::move(variant));
    }
  }
  place(all, base.out);
  return all;
}

}  // namespace tilegrad::train

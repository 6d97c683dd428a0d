#include "tilegrad/train/run/run_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>
#include <vector>

#include "tilegrad/train/run/mine.h"
#include "tilegrad/train/run/stop_rule.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

std::string json_key(std::string_view setting) {
  std::string key(setting);
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

nn::Init init_of(InitKind kind) {
  switch (kind) {
    case InitKind::gpt2:
      return {.embedding = 0.02, .linear = 0.02};
    case InitKind::associative:
      return {.embedding = 1.0, .linear = 0.07};
  }
  return {};
}

template <class T>
ordered_json json_of(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return name_of(value);
  } else {
    return value;
  }
}

ordered_json json_of(const CheckpointPolicy& policy) { return to_string(policy); }

// What was not given is null.
template <class T>
ordered_json json_of(const std::optional<T>& value) {
  return value ? json_of(*value) : ordered_json();
}

template <class T>
void read_value(const ordered_json& value, T& field, const std::string& what) {
  if constexpr (std::is_enum_v<T>) {
    check(value.is_string(), "{} is not a string", what);
    field = value_of<T>(what, value.get<std::string>());
  } else if constexpr (std::is_same_v<T, std::string>) {
    check(value.is_string(), "{} is not a string", what);
    field = value.get<std::string>();
  } else if constexpr (std::is_same_v<T, bool>) {
    check(value.is_boolean(), "{} is not true or false", what);
    field = value.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    check(value.is_number_integer(), "{} is not an integer", what);
    const bool fits = value.is_number_unsigned() ? std::in_range<T>(value.get<std::uint64_t>())
                                                 : std::in_range<T>(value.get<std::int64_t>());
    check(fits, "{} is {}, not between {} and {}", what, value.dump(), std::numeric_limits<T>::min(),
          std::numeric_limits<T>::max());
    field = value.get<T>();
  } else {
    check(value.is_number(), "{} is not a number", what);
    field = value.get<T>();
  }
}

void read_value(const ordered_json& value, CheckpointPolicy& field, const std::string& what) {
  std::string text;
  read_value(value, text, what);
  field = parse_checkpoint_policy(text);
}

template <class T>
void read_value(const ordered_json& value, std::optional<T>& field, const std::string& what) {
  field.reset();
  if (!value.is_null()) read_value(value, field.emplace(), what);
}

// An object in which no key appears twice, and after which nothing follows. A JSON library lets duplicate keys pass,
// and takes a zero byte for the end.
ordered_json parse_object(std::string_view text, std::string_view where) {
  std::set<std::string> keys;
  const auto inspect = [&](int depth, ordered_json::parse_event_t event, ordered_json& parsed) {
    if (event != ordered_json::parse_event_t::key || depth != 1) return true;
    const auto key = parsed.get<std::string>();
    check(keys.insert(key).second, "{}: `{}` appears twice", where, key);
    return true;
  };
  const bool zeros = text.find('\0') != std::string_view::npos;
  ordered_json json = zeros ? ordered_json() : ordered_json::parse(text, inspect, /*allow_exceptions=*/false);
  check(json.is_object(), "{}: is not a JSON object", where);
  return json;
}

// Bytes need not be valid UTF-8, so they are kept as numbers.
std::string read_bytes(const ordered_json& value, const std::string& what) {
  check(value.is_array(), "{} is not a list of bytes", what);
  std::string bytes;
  for (const ordered_json& byte : value) {
    check(byte.is_number_unsigned() && byte.get<std::uint64_t>() < 256, "{} is not a list of bytes", what);
    bytes.push_back(static_cast<char>(byte.get<unsigned>()));
  }
  return bytes;
}

}  // namespace

nn::TransformerConfig RunConfig::model_for(Index data_vocabulary) const {
  nn::TransformerConfig result = model;
  result.vocabulary = data_vocabulary;
  result.init = init_of(init);
  result.recompute = recompute_of(checkpoint);
  result.validate();
  use_mine(result, mine, mine_checkpoint);
  return result;
}

void RunConfig::validate() const {
  const auto at_least = [](std::string_view what, Index value, Index min) {
    constexpr Index kMax = 1'000'000'000'000;  // so that no sum or product of counts overflows
    check(value >= min, "{}: is {}, must be at least {}", what, value, min);
    check(value <= kMax, "{}: is {}, must be at most {}", what, value, kMax);
  };
  train::validate(checkpoint, model.layers);
  at_least("steps", steps, 1);
  at_least("batch", batch, 1);
  at_least("eval-every", eval_every, 1);
  at_least("save-every", save_every, 0);
  at_least("warmup", warmup, 0);
  at_least("threads", threads, 0);
  at_least("accumulate", accumulate, 1);
  at_least("patience", patience, 0);
  check(accumulate <= 1'000'000'000'000 / batch, "accumulate: {} batches of {} sequences are too many",
        accumulate, batch);
  if (decay) at_least("decay", *decay, 0);
  check(!decay || schedule == LrSchedule::wsd, "decay: has no effect with --schedule {}", name_of(schedule));
  if (!stop_when.empty()) parse_stop_rule(stop_when);
  check(std::isfinite(lr) && lr > 0, "lr: is {}, must be positive", lr);
  check(min_lr >= 0 && min_lr <= lr, "min-lr: is {}, must lie between 0 and lr, {}", min_lr, lr);
  train::validate(optimizer);
  check(!out.empty(), "out: names no folder");
}

ordered_json to_json(const RunConfig& config) {
  ordered_json json;
  for_each_setting(
      [&](const Setting& setting, const auto& field) { json[json_key(setting.name)] = json_of(field); },
      config);
  if (config.mine.empty()) json.erase("mine");  // few runs have a learner's code, and no earlier one had
  if (config.mine_checkpoint.empty()) json.erase("mine_checkpoint");
  if (config.is_text()) {
    std::vector<int> bytes;
    for (const char c : config.vocabulary) bytes.push_back(static_cast<unsigned char>(c));
    json["vocabulary"] = bytes;
    json["text_hash"] = config.text_hash;
  }
  return json;
}

std::set<std::string_view> settings_from_json(std::string_view text, std::string_view where,
                                              RunConfig& config) {
  const ordered_json json = parse_object(text, where);
  const auto what = [&](std::string_view key) { return fmt::format("{}: `{}`", where, key); };
  std::set<std::string> known = {"vocabulary", "text_hash"};
  std::set<std::string_view> found;
  for_each_setting(
      [&](const Setting& setting, auto& field) {
        const std::string key = *known.insert(json_key(setting.name)).first;
        if (!json.contains(key)) return;
        read_value(json[key], field, what(key));
        found.insert(setting.name);
      },
      config);
  for (const auto& [key, value] : json.items()) {
    check(known.contains(key), "{} is not a setting", what(key));
  }
  if (json.contains("vocabulary")) config.vocabulary = read_bytes(json["vocabulary"], what("vocabulary"));
  if (json.contains("text_hash")) read_value(json["text_hash"], config.text_hash, what("text_hash"));
  return found;
}

RunConfig config_from_json(std::string_view text, std::string_view where) {
  RunConfig config;
  const auto found = settings_from_json(text, where, config);
  const auto missing = [&](std::string_view key) { fail("{}: `{}` is missing", where, key); };
  for_each_setting(
      [&](const Setting& setting, const auto&) {
        if (!setting.newer && !found.contains(setting.name)) missing(json_key(setting.name));
      },
      config);
  if (config.is_text() && config.vocabulary.empty()) missing("vocabulary");
  return config;
}

}  // namespace tilegrad::train

#include "tilegrad/train/run/run_command_line.h"

#include <algorithm>
#include <optional>
#include <type_traits>

#include "tilegrad/train/run/presets.h"

namespace tilegrad::train {

namespace {

using Names = std::set<std::string_view>;

RunConfig preset_of(const RunConfig& config) {
  if (!config.is_text()) return task_preset(config.task.kind);
  RunConfig preset = text_preset();
  preset.text = config.text;
  return preset;
}

// Those that follow from others, whose values are therefore to be settled last.
Names derived_settings() {
  Names derived;
  RunConfig config = task_preset(data::TaskKind::sort);
  derive_settings(config, [&](std::string_view setting) {
    derived.insert(setting);
    return false;
  });
  return derived;
}

template <class T>
std::string option_of(std::string_view setting, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return fmt::format(" --{}{}", value ? "" : "no-", setting);
  } else if constexpr (std::is_enum_v<T>) {
    return fmt::format(" --{} {}", setting, name_of(value));
  } else {
    return fmt::format(" --{} {}", setting, shell_quoted(fmt::format("{}", value)));
  }
}

std::string option_of(std::string_view setting, const CheckpointPolicy& policy) {
  return option_of(setting, to_string(policy));
}

// No preset gives such a setting, so that none need be taken back.
template <class T>
std::string option_of(std::string_view setting, const std::optional<T>& value) {
  return value ? option_of(setting, *value) : std::string();
}

}  // namespace

std::string shell_quoted(const std::string& word) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-./,:=+@%").find(c) != std::string_view::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string options_of(const RunConfig& config, const Names& without) {
  const Names derived = derived_settings();
  RunConfig implied = preset_of(config);
  Names said = without;
  std::string options =
      config.is_text() ? option_of("text", config.text) : option_of("task", config.task.kind);
  const auto say_what_differs = [&](const Setting& setting, auto& now, const auto& wanted) {
    // Settings that come with another run's weights would be that run's if they were left out; but the data are named.
    const bool inherited = !config.from.empty() && comes_with_weights(setting) && setting.group != kDataGroup;
    const bool unsaid = now == wanted && !inherited;
    if (setting.name == "out" || without.contains(setting.name) || unsaid) return;
    if (!has_effect(setting.name, config.optimizer)) return;  // the command line would be refused
    said.insert(setting.name);
    options += option_of(setting.name, wanted);
    now = wanted;
  };
  for_each_setting(
      [&](const Setting& setting, auto& now, const auto& wanted) {
        if (setting.name == "task" || setting.name == "text" || derived.contains(setting.name)) return;
        say_what_differs(setting, now, wanted);
      },
      implied, config);
  // Anew after each, since one may follow from another one.
  const auto derive = [&] {
    derive_settings(implied, [&](std::string_view setting) { return said.contains(setting); });
  };
  derive();
  for_each_setting(
      [&](const Setting& setting, auto& now, const auto& wanted) {
        if (!derived.contains(setting.name)) return;
        say_what_differs(setting, now, wanted);
        derive();
      },
      implied, config);
  return options;
}

}  // namespace tilegrad::train

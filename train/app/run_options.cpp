#include "tilegrad/train/app/run_options.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <type_traits>

#include "tilegrad/train/app/choice.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/run/presets.h"
#include "tilegrad/train/run/run_command_line.h"

namespace tilegrad::train {

namespace {

std::string option_name(std::string_view setting) { return "--" + std::string(setting); }

// T, or what an optional holds.
template <class T>
struct ValueOf {
  using type = T;
};
template <class T>
struct ValueOf<std::optional<T>> {
  using type = T;
};

// A text that is no policy is a wrong command line.
CheckpointPolicy policy_of_option(const std::string& text) {
  try {
    return parse_checkpoint_policy(text);
  } catch (const Error& error) {
    throw CLI::ValidationError(error.what());
  }
}

}  // namespace

template <class T>
void RunOptions::add(const Setting& setting, T& field) {
  const std::string name = option_name(setting.name), help(setting.help);
  CLI::Option* option = nullptr;
  if constexpr (std::is_same_v<T, bool>) {
    option = command_.add_flag(name + ",!--no-" + std::string(setting.name), field, help);
  } else if constexpr (std::is_enum_v<T>) {
    option = add_choice<T>(command_, name, field, help);
  } else if constexpr (std::is_same_v<T, CheckpointPolicy>) {
    option = command_.add_option_function<std::string>(
        name, [&field](const std::string& text) { field = policy_of_option(text); }, help);
  } else {
    option = command_.add_option(name, field, help);
    if constexpr (std::is_integral_v<typename ValueOf<T>::type>) {
      option->transform(decimal<typename ValueOf<T>::type>());
    }
  }
  option->take_last()->group(std::string(setting.group));
}

RunOptions::RunOptions(CLI::App& command) : command_(command) {
  command_.add_option("--config", config_file_,
                      "read settings from this file, `name=value` a line; the command line wins");
  for_each_setting([&](const Setting& setting, auto& field) { add(setting, field); }, given_);
  command_.get_option("--task")->excludes("--text");
}

bool RunOptions::given(std::string_view setting) const {
  return command_.get_option(option_name(setting))->count() > 0;
}

// CLI11 reads config files only for the whole program, not for one command, so its parser is used by hand.
void RunOptions::read_config_file() {
  if (config_file_.empty()) return;
  std::ifstream file(config_file_);
  check(file.is_open() && file.peek() != std::ifstream::traits_type::eof(),
        "config: {} cannot be read or is empty", config_file_);
  for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_config(file)) {
    const bool section_mark = item.name == "++" || item.name == "--";
    if (!section_mark) read_item(item);
  }
  config_file_.clear();
}

void RunOptions::read_item(const CLI::ConfigItem& item) {
  const bool ours = item.parents.empty() || item.parents == std::vector{command_.get_name()};
  CLI::Option* option = ours ? command_.get_option_no_throw(option_name(item.name)) : nullptr;
  check(option != nullptr && option->get_configurable(), "config: {} has an unknown setting `{}`",
        config_file_, item.fullname());
  if (option->count() > 0) return;  // the command line said so already
  try {
    if (option->get_expected_min() == 0) {
      option->add_result(option->get_flag_value(item.name, CLI::ConfigTOML().to_flag(item)));
    } else {
      option->add_result(item.inputs);
    }
    option->run_callback();
  } catch (const CLI::ParseError& error) {
    fail("config: {}: {}", config_file_, error.what());
  }
}

RunConfig RunOptions::resolve() {
  read_config_file();
  check(!given("task") || !given("text"), "task, text: only one of them can be learned");
  check(!given("text") || !given_.text.empty(), "text: names no file");
  RunConfig config = given("text")   ? text_preset()
                     : given("task") ? task_preset(given_.task.kind)
                                     : task_preset(data::TaskKind::sort);
  for_each_setting(
      [&](const Setting& setting, auto& to, const auto& from) {
        if (given(setting.name)) to = from;
      },
      config, given_);
  derive_settings(config, [&](std::string_view setting) { return given(setting); });
  return config;
}

RunConfig RunOptions::resolve_resumed(const RunConfig& saved) {
  read_config_file();
  RunConfig config = saved;
  for_each_setting(
      [&](const Setting& setting, auto& to, const auto& from) {
        if (!given(setting.name)) return;
        check(setting.on_resume, "resume: --{} cannot change; the run's config.json decides it",
              setting.name);
        to = from;
      },
      config, given_);
  check(config.is_text() == saved.is_text(), "resume: --text cannot change; the run learns {}",
        saved.data_name());
  return config;
}

std::string given_options(const CLI::App& command, const std::set<std::string_view>& without) {
  std::string options;
  for (const CLI::Option* option : command.get_options()) {
    const std::string& name = option->get_single_name();
    if (option->count() == 0 || without.contains(name)) continue;
    options += " --" + name;
    const bool is_flag = option->get_expected_min() == 0;
    if (!is_flag) options += " " + shell_quoted(option->as<std::string>());
  }
  return options;
}

}  // namespace tilegrad::train

#include "tilegrad/train/app/run_options.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>

#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"
#include "tilegrad/train/app/choice.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/run/presets.h"
#include "tilegrad/train/run/run_command_line.h"
#include "tilegrad/train/run/run_folder.h"

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

// Text that is not a policy is a wrong command line.
CheckpointPolicy policy_of_option(const std::string& text) {
  try {
    return parse_checkpoint_policy(text);
  } catch (const Error& error) {
    throw CLI::ValidationError(error.what());
  }
}

// config.json, which is JSON, has to hold the name.
void check_name(std::string_view setting, const std::string& name) {
  check(is_utf8(name), "{}: `{}` is not valid UTF-8", setting, name);
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
  command_.add_option(
      "--config", config_file_,
      "read settings from this JSON file, such as the config.json of a run, whole or in part; "
      "the command line wins");
  for_each_setting([&](const Setting& setting, auto& field) { add(setting, field); }, given_);
  command_.get_option("--task")->excludes("--text");
}

bool RunOptions::on_command_line(std::string_view setting) const {
  return command_.get_option(option_name(setting))->count() > 0;
}

bool RunOptions::given(std::string_view setting) const {
  return on_command_line(setting) || in_file_.contains(setting) || in_source_.contains(setting);
}

void RunOptions::read_config_file() {
  if (command_.get_option("--config")->count() == 0) return;
  check(!config_file_.empty(), "config: names no file");
  const std::string text = read_file(config_file_);
  check(nlohmann::json::accept(text), "config: {}: is not JSON, such as {{\"layers\": 2, \"lr\": 0.01}}",
        config_file_);
  RunConfig file;
  in_file_ = settings_from_json(text, config_file_, file);
  // The config.json of a run has both; a text is learned if there is one.
  if (on_command_line("task") || !file.is_text()) in_file_.erase("text");
  if (on_command_line("text") || in_file_.contains("text")) in_file_.erase("task");
  for_each_setting(
      [&](const Setting& setting, auto& to, const auto& from) {
        if (in_file_.contains(setting.name) && !on_command_line(setting.name)) to = from;
      },
      given_, file);
}

// What the weights of --from belong to.
void RunOptions::read_source() {
  check(!on_command_line("from") || !given_.from.empty(), "from: names no run");
  if (given_.from.empty()) return;
  const RunConfig source = weights_at(given_.from).folder.read_config();
  const bool other_data = given("task") || given("text");
  for_each_setting(
      [&](const Setting& setting, auto& to, const auto& from) {
        const bool is_data = setting.group == kDataGroup;
        if (!comes_with_weights(setting) || given(setting.name) || (is_data && other_data)) return;
        if (setting.name == (source.is_text() ? "task" : "text")) return;
        in_source_.insert(setting.name);
        to = from;
      },
      given_, source);
}

std::map<std::string, std::string> RunOptions::without_effect(const RunConfig& c) const {
  std::map<std::string, std::string> lines;
  const auto check_effect = [&](std::string_view setting, bool has_effect, const std::string& with) {
    if (has_effect || !on_command_line(setting)) return;
    lines.emplace(setting, fmt::format("{}: has no effect with {}", setting, with));
  };
  const std::string data = c.is_text() ? "--text" : fmt::format("--task {}", name_of(c.task.kind));
  for (const std::string_view setting : {"length", "symbols"}) check_effect(setting, !c.is_text(), data);
  for (const std::string_view setting : {"pairs", "filler"}) {
    check_effect(setting, !c.is_text() && c.task.kind == data::TaskKind::recall, data);
  }
  check_effect("min-lr", c.schedule != LrSchedule::constant, "--schedule constant");
  const std::string optimizer = fmt::format("--optimizer {}", name_of(c.optimizer.kind));
  for (const std::string_view setting : {"weight-decay", "beta1", "beta2", "momentum", "nesterov"}) {
    check_effect(setting, has_effect(setting, c.optimizer), optimizer);
  }
  return lines;
}

// An option that was given but would change nothing is a misunderstanding.
RunConfig RunOptions::resolve() {
  const RunConfig config = resolve_any();
  const auto lines = without_effect(config);
  if (!lines.empty()) fail("{}", lines.begin()->second);
  return config;
}

RunConfig RunOptions::resolve_any() {
  read_config_file();
  read_source();
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
  check_name("out", config.out);
  check_name("text", config.text);
  check_name("from", config.from);
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

RunConfig RunOptions::resolve_repeated(const RunConfig& saved, std::string_view file) {
  check(command_.get_option("--config")->count() == 0, "repeat: --config has no effect");
  RunConfig config = saved;
  for_each_setting(
      [&](const Setting& setting, const auto&) {
        check(setting.name == "out" || !on_command_line(setting.name),
              "repeat: --{} has no effect; --config {} takes settings", setting.name, file);
      },
      given_);
  if (on_command_line("out")) config.out = given_.out;
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

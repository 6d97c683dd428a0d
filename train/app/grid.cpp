#include "tilegrad/train/app/grid.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "tilegrad/train/run/run_command_line.h"

namespace tilegrad::train {

namespace {

struct GridAxis {
  std::string setting;
  std::vector<std::string> values;
};

std::set<std::string> names_of_settings() {
  std::set<std::string> names;
  RunConfig config;
  for_each_setting([&](const Setting& setting, const auto&) { names.emplace(setting.name); }, config);
  return names;
}

std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> parts;
  for (std::size_t end; (end = text.find(',')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    parts.emplace_back(text.substr(0, end));
  }
  parts.emplace_back(text);
  return parts;
}

GridAxis parse_axis(const std::string& text, const std::set<std::string>& settings) {
  const auto equals = text.find('=');
  check(equals != std::string::npos, "vary: `{}` is not a setting with its values, such as lr=0.001,0.003",
        text);
  GridAxis axis = {.setting = text.substr(0, equals), .values = split_at_commas(text.substr(equals + 1))};
  check(axis.setting != "seed", "vary: --seeds varies the seed");
  check(axis.setting != "out" && settings.contains(axis.setting),
        "vary: `{}` is not a setting that can be varied (tilegrad compare --help lists them)", axis.setting);
  const bool empty =
      std::any_of(axis.values.begin(), axis.values.end(), [](auto& value) { return value.empty(); });
  check(!empty, "vary: `{}` has an empty value", text);
  return axis;
}

std::vector<GridAxis> axes_of(const GridOptions& options, const std::set<std::string>& settings) {
  std::vector<GridAxis> axes;
  for (const std::string& text : options.vary) {
    GridAxis axis = parse_axis(text, settings);
    const bool twice =
        std::any_of(axes.begin(), axes.end(), [&](auto& other) { return other.setting == axis.setting; });
    check(!twice, "vary: {} is given twice", axis.setting);
    axes.push_back(std::move(axis));
  }
  if (options.seeds.empty()) return axes;
  GridAxis& seeds = axes.emplace_back(GridAxis{.setting = "seed", .values = {}});
  for (const std::uint64_t seed : options.seeds) seeds.values.push_back(std::to_string(seed));
  return axes;
}

using Arguments = std::map<std::string, std::string>;  // values of settings

// The settings of a run that the command was given, except those on the axes.
Arguments given_settings(const CLI::App& command, const std::vector<GridAxis>& axes,
                         std::set<std::string> settings) {
  settings.insert("config");
  for (const GridAxis& axis : axes) settings.erase(axis.setting);
  Arguments arguments;
  for (const CLI::Option* option : command.get_options()) {
    const std::string& name = option->get_single_name();
    if (option->count() > 0 && settings.contains(name)) arguments[name] = option->results().back();
  }
  return arguments;
}

// One combination: the settings that all have, and its values on the axes.
struct Point {
  std::string name;
  Arguments shared, varied;
};

// Its config, and which of its settings have no effect in it, with the line that says so.
struct Resolved {
  RunConfig config;
  std::map<std::string, std::string> without_effect;
};

Resolved resolved(const Point& point, const std::function<RunConfig(RunOptions&)>& resolve) {
  CLI::App app;
  RunOptions run(app);
  std::vector<std::string> arguments;
  for (const Arguments* part : {&point.shared, &point.varied}) {
    for (const auto& [name, value] : *part) arguments.push_back(fmt::format("--{}={}", name, value));
  }
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    fail("{}: {}", point.name, error.what());
  }
  const RunConfig config = resolve(run);
  return {.config = config, .without_effect = run.without_effect(config)};
}

// A name becomes that of a folder.
std::string as_file_name(std::string text) {
  std::replace(text.begin(), text.end(), '/', '_');
  return text;
}

}  // namespace

std::vector<Variant> make_grid(const CLI::App& command, const GridOptions& options,
                               const std::function<RunConfig(RunOptions&)>& resolve) {
  const auto settings = names_of_settings();
  const auto axes = axes_of(options, settings);
  std::vector<Point> points = {{.name = "", .shared = given_settings(command, axes, settings), .varied = {}}};
  for (const GridAxis& axis : axes) {
    std::vector<Point> finer;
    for (const Point& point : points) {
      for (const std::string& value : axis.values) {
        Point& next = finer.emplace_back(point);
        next.name += fmt::format("{}{}={}", point.name.empty() ? "" : ",", axis.setting, as_file_name(value));
        next.varied[axis.setting] = value;
      }
    }
    points = std::move(finer);
  }
  std::vector<Variant> grid;
  std::map<std::string, std::size_t> useless;  // in how many points a shared setting has no effect
  for (Point& point : points) {
    Resolved run = resolved(point, resolve);
    const auto lines = run.without_effect;
    for (const auto& [name, line] : lines) {
      if (point.varied.contains(name) || ++useless[name] == points.size()) fail("{}", line);
      point.shared.erase(name);
    }
    if (!lines.empty()) run = resolved(point, resolve);
    grid.push_back({.name = point.name, .config = run.config});
  }
  return grid;
}

std::string to_string(const GridOptions& options) {
  std::string text;
  for (const std::string& axis : options.vary) text += " --vary " + shell_quoted(axis);
  if (!options.seeds.empty()) text += fmt::format(" --seeds {}", fmt::join(options.seeds, ","));
  return text;
}

}  // namespace tilegrad::train

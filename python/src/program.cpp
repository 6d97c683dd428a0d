#include "program.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/base/interrupt.h"
#include "tilegrad/train/app/program.h"
#include "tilegrad/train/report/console.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::python {

namespace nb = nanobind;

namespace {

nb::bytes bytes_of(std::string_view text) { return nb::bytes(text.data(), text.size()); }

// `tilegrad <arguments>`: the exit code, what went to the two streams, and the signal that asked it to stop, or 0.
nb::tuple run_program(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"tilegrad"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out, err;
  int code = 0;
  {
    const nb::gil_scoped_release unlocked;
    code = train::run(static_cast<int>(argv.size()), argv.data(), {.out = out, .err = err});
  }
  const bool trained = code == train::kSuccess || code == train::kInterrupted;
  const int signal = trained ? InterruptScope::signal() : 0;
  return nb::make_tuple(code, bytes_of(out.view()), bytes_of(err.view()), signal);
}

// (name, group, help) of every setting; the name is the key of config.json.
nb::list settings() {
  nb::list all;
  train::RunConfig config;
  train::for_each_setting(
      [&](const train::Setting& setting, const auto&) {
        std::string name(setting.name);
        std::replace(name.begin(), name.end(), '-', '_');
        all.append(nb::make_tuple(name, std::string(setting.group), std::string(setting.help)));
      },
      config);
  return all;
}

nb::list tasks() {
  nb::list names;
  for (const data::TaskName& task : data::kTasks) names.append(nb::str(task.name.data(), task.name.size()));
  return names;
}

}  // namespace

void add_program(nb::module_& module) {
  module.def("run_program", &run_program, nb::arg("arguments"));
  module.def("settings", &settings);
  module.def("tasks", &tasks);
}

}  // namespace tilegrad::python

#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <sstream>

#include "tests/train/run_program.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/labs/child.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/labs/publish.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/report/column_meanings.h"

namespace tilegrad::train {

inline LabOptions options_in(const std::string& out, int rounds = 1) {
  return {.out = out, .program = program_file(), .rounds = rounds, .command = "tilegrad lab 'again'"};
}

/// What a lab left in its folder; its last lines are the finding and the folder.
struct LabOutput {
  int code = 0;
  std::string text, csv, html;
  Json json, environment;

  const Json& row(std::size_t i) const { return json.at("rows").at(i); }
};

template <class RunLab>
LabOutput run_lab(const std::string& folder, const std::string& name, RunLab&& run) {
  std::ostringstream out, err;
  const int code = run(options_in(folder), Console{.out = out, .err = err});
  return {.code = code,
          .text = out.str(),
          .csv = read_file(folder + "/" + name + ".csv"),
          .html = read_file(folder + "/report.html"),
          .json = Json::parse(read_file(folder + "/" + name + ".json")),
          .environment = Json::parse(read_file(folder + "/environment.json"))};
}

/// The report shows the configuration, the machine, the program and the command.
inline void check_facts(const LabOutput& output) {
  CHECK(output.html.starts_with("<!"));
  std::map<std::string, std::string> facts;
  for (const auto& [name, value] :
       data_of(output.html).at("facts").get<std::vector<std::array<std::string, 2>>>()) {
    facts[name] = value;
  }
  CHECK(facts.at("seed") == "1");
  CHECK(facts.at("threads") == std::to_string(kernels::threads()));
  CHECK(facts.at("command") == "tilegrad lab 'again'");
  CHECK(facts.at("processor").starts_with(processor_name()));
  for (const char* name : {"simd", "openblas", "compiler", "tilegrad"}) CHECK_FALSE(facts.at(name).empty());
  CHECK(output.environment.at("compiler") == facts.at("compiler"));
}

/// Every column of a table has a sentence, unless its heading is a name.
inline void check_explained(const LabOutput& output) {
  const std::set<std::string> names = {"tensor", "variant", "kind", "to"};
  const Json page = data_of(output.html);
  for (const auto& table : page.at("tables")) {
    if (table.at("folded") == true) continue;
    for (const auto& column : table.at("columns").get<std::vector<std::string>>()) {
      CAPTURE(column);
      CHECK((names.contains(column) || !meaning_of(column).empty()));
    }
  }
}

/// The output begins with what will be measured and about how long that takes. The finding closes it and is in the files;
/// the CSV has a line for each row.
inline void check_published(const LabOutput& output, std::size_t rows) {
  const auto finding = output.json.at("finding").get<std::string>();
  CHECK(output.code == kSuccess);
  CHECK(output.json.at("rows").size() == rows);
  CHECK(output.text.find("\nabout ") == output.text.find('\n'));
  CHECK(output.text.find(finding + "\nresults: ") != std::string::npos);
  check_facts(output);
  check_explained(output);
  CHECK(static_cast<std::size_t>(std::count(output.csv.begin(), output.csv.end(), '\n')) == rows + 1);
}

}  // namespace tilegrad::train

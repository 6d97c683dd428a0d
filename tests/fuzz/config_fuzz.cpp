// config.json of a run. What is accepted can be described, written and read again.
#include <nlohmann/json.hpp>

#include "tests/fuzz/target.h"
#include "tilegrad/base/json.h"
#include "tilegrad/train/run/run_config.h"

void tilegrad::fuzz::fuzz(std::string_view input) {
  const train::RunConfig config = train::config_from_json(input, "config.json");
  const std::string text = json_text(to_json(config));
  expect(json_text(to_json(train::config_from_json(text, "config.json"))) == text,
         "settings change when they are written");
}

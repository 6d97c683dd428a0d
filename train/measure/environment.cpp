#include "tilegrad/train/measure/environment.h"

#include <fmt/format.h>
#include <hwy/targets.h>
#include <sys/utsname.h>

#include <thread>

#include "tilegrad/base/file.h"
#include "tilegrad/base/format.h"
#include "tilegrad/base/json.h"
#include "tilegrad/kernels/gemm.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/measure/version.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

// Calls f(name, field) for every fact: the one list of them.
template <class F, class E>
void for_each_fact(F&& f, E& environment) {
  f("command", environment.command);
  f("processor", environment.processor);
  f("memory", environment.memory);
  f("system", environment.system);
  f("simd", environment.simd);
  f("openblas", environment.openblas);
  f("compiler", environment.compiler);
  f("tilegrad", environment.tilegrad);
}

std::string processor() {
  return fmt::format("{}, {} threads", processor_name(), std::thread::hardware_concurrency());
}

std::string memory() {
  const Index bytes = installed_memory();
  return bytes > 0 ? format_bytes(bytes) : "";
}

std::string system() {
  utsname name = {};
  return uname(&name) == 0 ? fmt::format("{} {} {}", name.sysname, name.release, name.machine) : "";
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

}  // namespace

std::string simd_target() {
  const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(usable & -usable);  // the lowest bit is the best target
}

Environment current_environment(std::string command) {
  return {.command = std::move(command),
          .processor = processor(),
          .memory = memory(),
          .system = system(),
          .simd = simd_target(),
          .openblas = kernels::blas_core(),
          .compiler = compiler(),
          .tilegrad = std::string(kVersion)};
}

std::vector<std::pair<std::string, std::string>> facts_of(const Environment& environment) {
  std::vector<std::pair<std::string, std::string>> facts;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) facts.emplace_back(name, value);
  };
  for_each_fact(add, environment);
  return facts;
}

void write_environment(const std::filesystem::path& file, const Environment& environment) {
  ordered_json json;
  for_each_fact([&](const char* name, const std::string& value) { json[name] = value; }, environment);
  write_file(file, json_text(json, 2) + "\n");
}

Environment read_environment(const std::filesystem::path& file, std::vector<std::string>& warnings) {
  Environment environment;
  if (!std::filesystem::exists(file)) return environment;
  const ordered_json json = ordered_json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    warnings.push_back(file.string() + ": is not a JSON object; left out");
    return environment;
  }
  const auto read = [&](const char* name, std::string& value) {
    if (json.contains(name) && json[name].is_string()) value = json[name].get<std::string>();
  };
  for_each_fact(read, environment);
  return environment;
}

}  // namespace tilegrad::train

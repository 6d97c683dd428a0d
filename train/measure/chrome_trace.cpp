#include "tilegrad/train/measure/chrome_trace.h"

#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

constexpr int kProcess = 1;  // the format wants a number; there is one process

}  // namespace

void ChromeTrace::add(const Event& event) {
  append({{"ph", "X"},
          {"name", event.name},
          {"cat", event.category},
          {"ts", event.begin_us},
          {"dur", event.duration_us},
          {"pid", kProcess},
          {"tid", event.thread},
          {"args", event.details}});
}

void ChromeTrace::counter(std::string_view name, double at_us, double value) {
  append({{"ph", "C"}, {"name", name}, {"ts", at_us}, {"pid", kProcess}, {"args", {{"value", value}}}});
}

void ChromeTrace::process_name(std::string_view name) { append_name("process_name", 0, name); }

void ChromeTrace::thread_name(int thread, std::string_view name) { append_name("thread_name", thread, name); }

void ChromeTrace::append_name(std::string_view kind, int thread, std::string_view name) {
  append({{"ph", "M"}, {"name", kind}, {"pid", kProcess}, {"tid", thread}, {"args", {{"name", name}}}});
}

void ChromeTrace::append(const ordered_json& entry) {
  if (!entries_.empty()) entries_ += ",\n";
  entries_ += json_text(entry);
}

void ChromeTrace::write(const std::filesystem::path& file) const {
  write_file(file, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n" + entries_ + "\n]}\n");
}

}  // namespace tilegrad::train

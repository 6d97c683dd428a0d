#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tilegrad::train {

/// A timeline for chrome://tracing and Perfetto, in the Trace Event Format. Times are microseconds since one
/// moment that the caller chose; events may come in any order.
class ChromeTrace {
 public:
  /// Something that took some time on a thread. Events of one thread nest or follow each other.
  struct Event {
    std::string_view name, category;
    double begin_us = 0, duration_us = 0;
    int thread = 0;
    nlohmann::ordered_json details = nlohmann::ordered_json::object();  ///< shown when the event is chosen
  };

  void add(const Event& event);
  /// A value that holds from then on, drawn as a track of its own.
  void counter(std::string_view name, double at_us, double value);
  void process_name(std::string_view name);
  void thread_name(int thread, std::string_view name);

  /// Replaces the file atomically.
  void write(const std::filesystem::path& file) const;

 private:
  void append(const nlohmann::ordered_json& entry);
  void append_name(std::string_view kind, int thread, std::string_view name);

  std::string entries_;  // as they will stand in the file: a long run has many
};

}  // namespace tilegrad::train

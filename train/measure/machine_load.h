#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tilegrad::train {

/// Processor time since the machine started, in seconds, summed over some processors.
struct ProcessorTimes {
  double busy = 0;  ///< with what a hypervisor gave to other machines
  double all = 0;   ///< with what was idle
};

/// Reads the lines of these processors in the text of /proc/stat; nothing if one of them is missing.
std::optional<ProcessorTimes> parse_processor_times(std::string_view stat, std::span<const int> processors,
                                                    double ticks_per_second);

/// The share of the processors' time between two readings that went to others than a process that took `own_seconds` of
/// it, from 0 to 1; nothing if the time was too short for the clock of /proc/stat to tell.
std::optional<double> share_of_others(const ProcessorTimes& before, const ProcessorTimes& after,
                                      double own_seconds);

/// How busy others keep the processors that this process may run on, from the moment at which it is made. What this
/// process and its children used counts as its own, as soon as a child has ended.
class MachineLoad {
 public:
  MachineLoad();

  /// Since then, from 0 to 1; nothing if the system does not tell.
  std::optional<double> share_of_others() const;

 private:
  std::optional<ProcessorTimes> before_;
  double own_before_ = 0;
};

/// A line that says so if others took more than a tenth of the processors, for then times are longer than they need be;
/// otherwise empty.
std::string busy_note(std::optional<double> share_of_others);

}  // namespace tilegrad::train

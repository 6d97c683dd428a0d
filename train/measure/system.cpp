#include "tilegrad/train/measure/system.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string_view>

namespace tilegrad {

namespace {

// The value of the first line "key : value" of a file in /proc; "" if there is none.
std::string proc_value(const char* file, std::string_view key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(key)) continue;
    const auto begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

}  // namespace

std::string processor_name() {
  const std::string name = proc_value("/proc/cpuinfo", "model name");
  return name.empty() ? "unknown processor" : name;
}

Index l2_bytes() {
  // "1024K"; missing where the kernel or a container hides it.
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index2/size");
  Index kibibytes = 0;
  if (file >> kibibytes && kibibytes > 0) return kibibytes << 10;
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? Index{bytes} : Index{1} << 20;
}

Index page_faults() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

Index installed_memory() {
  std::istringstream total(proc_value("/proc/meminfo", "MemTotal"));  // "16384 kB"
  Index kibibytes = 0;
  total >> kibibytes;
  return kibibytes << 10;
}

}  // namespace tilegrad

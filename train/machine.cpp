#include "train/machine.h"

#include <unistd.h>

#include <fstream>

namespace tilegrad::train {

Index l2_bytes() {
  // "1024K"; missing where the kernel or a container hides it.
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index2/size");
  Index kibibytes = 0;
  if (file >> kibibytes && kibibytes > 0) return kibibytes << 10;
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? Index{bytes} : Index{1} << 20;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

}  // namespace tilegrad::train

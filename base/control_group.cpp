#include "tilegrad/base/control_group.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

namespace tilegrad {

namespace {

namespace fs = std::filesystem;

template <class T>
void bound(std::optional<T>& limit, T value) {
  if (value > 0) limit = limit ? std::min(*limit, value) : value;
}

// Version 2: "200000 100000" or "max 100000", the microseconds of each period, and "1073741824" or "max".
void read_v2(const fs::path& group, ControlGroupLimits& limits) {
  double quota = 0, period = 0;
  if (std::ifstream(group / "cpu.max") >> quota >> period && period > 0) {
    bound(limits.processors, quota / period);
  }
  Index memory = 0;
  if (std::ifstream(group / "memory.max") >> memory) bound(limits.memory, memory);
}

// Version 1: a quota of -1 means none, and a memory limit beyond all memory means none.
void read_v1_cpu(const fs::path& group, ControlGroupLimits& limits) {
  double quota = 0, period = 0;
  if (std::ifstream(group / "cpu.cfs_quota_us") >> quota &&
      std::ifstream(group / "cpu.cfs_period_us") >> period && period > 0) {
    bound(limits.processors, quota / period);
  }
}
void read_v1_memory(const fs::path& group, ControlGroupLimits& limits) {
  Index memory = 0;
  if (std::ifstream(group / "memory.limit_in_bytes") >> memory) bound(limits.memory, memory);
}

// One line of /proc/self/cgroup, as in "4:cpu,cpuacct:/user" (version 1) or "0::/user" (version 2).
struct Membership {
  std::string controllers;
  fs::path group;  // without the slash at the beginning

  bool has(const std::string& controller) const {
    return ("," + controllers + ",").find("," + controller + ",") != std::string::npos;
  }
};

std::vector<Membership> memberships(const fs::path& root) {
  std::vector<Membership> all;
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    all.push_back({.controllers = line.substr(first + 1, second - first - 1),
                   .group = fs::path(line.substr(second + 1)).relative_path()});
  }
  return all;
}

// Calls read() with the group below `mount` and with all groups that contain it. Inside a container the innermost ones
// may not be visible; then `mount` itself is the container's group.
template <class F>
void for_each_around(const fs::path& mount, fs::path group, F&& read) {
  for (; !group.empty(); group = group.parent_path()) read(mount / group);
  read(mount);
}

}  // namespace

ControlGroupLimits control_group_limits(const fs::path& root) {
  ControlGroupLimits limits;
  const fs::path mount = root / "sys/fs/cgroup";
  for (const Membership& m : memberships(root)) {
    if (m.controllers.empty()) {
      for_each_around(mount, m.group, [&](const fs::path& group) { read_v2(group, limits); });
      for_each_around(mount / "unified", m.group, [&](const fs::path& group) { read_v2(group, limits); });
    }
    if (m.has("cpu")) {
      // The mount is named after one of its controllers, or after all of them.
      for (const std::string& name : {std::string("cpu"), m.controllers}) {
        for_each_around(mount / name, m.group, [&](const fs::path& group) { read_v1_cpu(group, limits); });
      }
    }
    if (m.has("memory")) {
      for_each_around(mount / "memory", m.group,
                      [&](const fs::path& group) { read_v1_memory(group, limits); });
    }
  }
  return limits;
}

}  // namespace tilegrad

#include "tilegrad/base/control_group.h"

#include <doctest/doctest.h>

#include <fstream>

#include "tests/temporary_folder.h"

using namespace tilegrad;

namespace {

// A file below the root of a machine that is made up.
void put(const test::TemporaryFolder& root, const std::string& name, const std::string& content) {
  const std::filesystem::path path = root / name;
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << content;
}

}  // namespace

TEST_CASE("control groups: nothing limits a machine without them, nor one whose groups have no limits") {
  const test::TemporaryFolder root;
  CHECK_FALSE(control_group_limits(root / "").processors);
  CHECK_FALSE(control_group_limits(root / "").memory);
  put(root, "proc/self/cgroup", "0::/user\n");
  put(root, "sys/fs/cgroup/user/cpu.max", "max 100000\n");
  put(root, "sys/fs/cgroup/user/memory.max", "max\n");
  CHECK_FALSE(control_group_limits(root / "").processors);
  CHECK_FALSE(control_group_limits(root / "").memory);
}

TEST_CASE("control groups: of nested groups the least limit holds, version 2") {
  const test::TemporaryFolder root;
  put(root, "proc/self/cgroup", "0::/a/b/c\n");
  put(root, "sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  put(root, "sys/fs/cgroup/a/b/c/cpu.max", "300000 100000\n");
  put(root, "sys/fs/cgroup/a/memory.max", "2000000\n");
  put(root, "sys/fs/cgroup/a/b/memory.max", "1000000\n");
  const ControlGroupLimits limits = control_group_limits(root / "");
  CHECK(limits.processors.value() == 1.5);
  CHECK(limits.memory.value() == 1000000);
}

TEST_CASE("control groups: version 1, under the name of one controller or of several") {
  for (const std::string name : {"cpu", "cpu,cpuacct"}) {
    const test::TemporaryFolder root;
    put(root, "proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/x/y\n0::/\n");
    put(root, "sys/fs/cgroup/" + name + "/x/y/cpu.cfs_quota_us", "-1\n");
    put(root, "sys/fs/cgroup/" + name + "/x/y/cpu.cfs_period_us", "100000\n");
    put(root, "sys/fs/cgroup/" + name + "/x/cpu.cfs_quota_us", "50000\n");
    put(root, "sys/fs/cgroup/" + name + "/x/cpu.cfs_period_us", "100000\n");
    put(root, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "5000\n");
    const ControlGroupLimits limits = control_group_limits(root / "");
    CHECK(limits.processors.value() == 0.5);
    CHECK(limits.memory.value() == 5000);
  }
}

TEST_CASE("control groups: both versions at once, where version 2 is mounted below the others") {
  const test::TemporaryFolder root;
  put(root, "proc/self/cgroup", "2:memory:/x\n0::/y\n");
  put(root, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "5000\n");
  put(root, "sys/fs/cgroup/unified/y/memory.max", "4000\n");
  put(root, "sys/fs/cgroup/unified/y/cpu.max", "300000 100000\n");
  const ControlGroupLimits limits = control_group_limits(root / "");
  CHECK(limits.processors.value() == 3);
  CHECK(limits.memory.value() == 4000);
}

TEST_CASE("control groups: inside a container, where the group's own path is not visible, the root counts") {
  const test::TemporaryFolder root;
  put(root, "proc/self/cgroup", "0::/docker/0123\n");
  put(root, "sys/fs/cgroup/cpu.max", "200000 50000\n");
  CHECK(control_group_limits(root / "").processors.value() == 4);
}

TEST_CASE("control groups: files that make no sense limit nothing") {
  const test::TemporaryFolder root;
  put(root, "proc/self/cgroup", "cpu\n:memory\n3:cpu:/\n0::/\n::\n");
  put(root, "sys/fs/cgroup/cpu.max", "100000 0\n");
  put(root, "sys/fs/cgroup/memory.max", "-7\n");
  put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  put(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "0\n");
  put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
  CHECK_FALSE(control_group_limits(root / "").processors);
  CHECK_FALSE(control_group_limits(root / "").memory);
}

#include "tilegrad/base/lock.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "tests/message_of.h"
#include "tests/temporary_folder.h"
#include "tilegrad/base/file.h"

namespace tilegrad {
namespace {

using test::message_of;
using test::TemporaryFolder;

namespace fs = std::filesystem;

TEST_CASE("lock: a second owner is refused and hears who the first one is, until that one is done") {
  const TemporaryFolder folder;
  {
    const FolderLock lock(folder / "run");
    CHECK(message_of([&] { FolderLock(folder / "run"); }) ==
          (folder / "run") + ": is in use by process " + std::to_string(::getpid()));
  }
  CHECK(message_of([&] { FolderLock(folder / "run"); }).empty());
}

TEST_CASE("lock: a folder that was made and stayed empty goes away, another one stays") {
  const TemporaryFolder folder;
  { const FolderLock lock(folder / "empty"); }
  CHECK_FALSE(fs::exists(folder / "empty"));
  fs::create_directory(folder / "before");
  { const FolderLock lock(folder / "before/made/for/it"); }
  CHECK(fs::exists(folder / "before"));
  CHECK_FALSE(fs::exists(folder / "before/made"));
  {
    const FolderLock lock(folder / "used");
    write_file(folder / "used/a", "x");
  }
  CHECK(fs::exists(folder / "used/a"));
  CHECK_FALSE(fs::exists(folder / "used/.lock"));
}

TEST_CASE("lock: where no folder can be made, those above it that were made go away") {
  const TemporaryFolder folder;
  const std::string too_long(300, 'x');
  CHECK_FALSE(message_of([&] { FolderLock((folder / "made/for/") + too_long); }).empty());
  CHECK_FALSE(fs::exists(folder / "made"));
  fs::create_directory(folder / "before");
  CHECK_FALSE(message_of([&] { FolderLock((folder / "before/made/") + too_long); }).empty());
  CHECK(fs::exists(folder / "before"));
  CHECK_FALSE(fs::exists(folder / "before/made"));
}

TEST_CASE("lock: a process that is killed leaves no lock, and what it was writing is swept away") {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const FolderLock lock(folder / "run");
    write_file((folder / "run/.tilegrad-") + std::to_string(::getpid()) + "-1.tmp", "half");
    ::_exit(0);  // without any destructor
  }
  ::waitpid(child, nullptr, 0);
  write_file(folder / "run/.tilegrad-mine", "of the user");
  REQUIRE(fs::exists(folder / "run/.lock"));
  CHECK(message_of([&] { FolderLock(folder / "run"); }).empty());
  CHECK_FALSE(fs::exists((folder / "run/.tilegrad-") + std::to_string(child) + "-1.tmp"));
  CHECK(fs::exists(folder / "run/.tilegrad-mine"));
}

}  // namespace
}  // namespace tilegrad

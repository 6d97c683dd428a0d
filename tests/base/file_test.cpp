#include "tilegrad/base/file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "tests/limits.h"
#include "tests/message_of.h"
#include "tests/temporary_folder.h"

namespace tilegrad {
namespace {

using test::FileSizeLimit;
using test::message_of;
using test::TemporaryFolder;

namespace fs = std::filesystem;

TEST_CASE("file: what is written is read back, every byte of it") {
  const TemporaryFolder folder;
  std::string content(100000, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i % 256);
  write_file(folder / "bytes", content);
  CHECK(read_file(folder / "bytes") == content);
  write_file(folder / "empty", "");
  CHECK(read_file(folder / "empty").empty());
}

TEST_CASE("file: writing replaces the old content and leaves nothing else behind") {
  const TemporaryFolder folder;
  write_file(folder / "a", "the old and longer content");
  write_file(folder / "a", "new");
  CHECK(read_file(folder / "a") == "new");
  CHECK(folder.entries() == 1);
}

TEST_CASE("file: a reader that opened the old file keeps it whole while it is replaced") {
  const TemporaryFolder folder;
  write_file(folder / "a", "old");
  std::ifstream reader(folder / "a");
  write_file(folder / "a", "new");
  std::string seen;
  reader >> seen;
  CHECK(seen == "old");
}

TEST_CASE("file: a failed write says why, keeps the old file and removes the temporary one") {
  const TemporaryFolder folder;
  write_file(folder / "a", "old");
  std::string message;
  {
    const FileSizeLimit limit(1000);
    message = message_of([&] { write_file(folder / "a", std::string(5000, 'x')); });
  }
  CHECK(message == (folder / "a") + ": cannot be written: File too large");
  CHECK(read_file(folder / "a") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("file: a full disk is reported as such, and a device stays a device") {
  const TemporaryFolder folder;
  fs::create_symlink("/dev/full", folder / "a");
  CHECK(message_of([&] { write_file(folder / "a", "x"); }) ==
        (folder / "a") + ": cannot be written: No space left on device");
  CHECK(fs::is_character_file("/dev/full"));
  CHECK(folder.entries() == 1);
}

TEST_CASE("file: a new content has the mode of the old one") {
  const TemporaryFolder folder;
  write_file(folder / "a", "old");
  const auto owner_only = fs::perms::owner_read | fs::perms::owner_write;
  fs::permissions(folder / "a", owner_only);
  write_file(folder / "a", "new");
  CHECK(read_file(folder / "a") == "new");
  CHECK(fs::status(folder / "a").permissions() == owner_only);
}

TEST_CASE("file: writing to a link writes the file that it names, and the link stays") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "elsewhere");
  write_file(folder / "elsewhere/a", "old");
  fs::create_symlink("elsewhere/a", folder / "link");
  fs::create_symlink("elsewhere/missing", folder / "dangling");
  write_file(folder / "link", "new");
  write_file(folder / "dangling", "made");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_file(folder / "elsewhere/a") == "new");
  CHECK(read_file(folder / "elsewhere/missing") == "made");
}

TEST_CASE("file: links in a circle are an error of one line, for reading and for writing") {
  const TemporaryFolder folder;
  fs::create_symlink(folder / "b", folder / "a");
  fs::create_symlink(folder / "a", folder / "b");
  CHECK(message_of([&] { write_file(folder / "a", "x"); }) ==
        (folder / "a") + ": cannot be written: Too many levels of symbolic links");
  CHECK(message_of([&] { read_file(folder / "a"); }) ==
        (folder / "a") + ": cannot be opened: Too many levels of symbolic links");
}

TEST_CASE("file: a named pipe is written in place") {
  const TemporaryFolder folder;
  const std::string pipe = folder / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  std::string received;
  std::thread reader([&] { received = read_file(pipe); });
  write_file(pipe, "content");
  reader.join();
  CHECK(received == "content");
  CHECK(fs::is_fifo(pipe));
}

TEST_CASE("file: a file of the user that is called like a temporary one stays as it is") {
  const TemporaryFolder folder;
  write_file(folder / "a.tmp", "mine");
  write_file(folder / "a", "new");
  CHECK(read_file(folder / "a.tmp") == "mine");
}

TEST_CASE("file: writing into a missing folder or over a folder is an error that names the path") {
  const TemporaryFolder folder;
  CHECK(message_of([&] { write_file(folder / "missing/a", "x"); }) ==
        (folder / "missing/a") + ": cannot be written: No such file or directory");
  fs::create_directory(folder / "taken");
  CHECK(message_of([&] { write_file(folder / "taken", "x"); }) ==
        (folder / "taken") + ": cannot be written: Is a directory");
  CHECK(folder.entries() == 1);
}

TEST_CASE("file: reading what is missing, a folder or unreadable is an error that names the path") {
  const TemporaryFolder folder;
  CHECK(message_of([&] { read_file(folder / "missing"); }) == (folder / "missing") + ": no such file");
  fs::create_directory(folder / "folder");
  CHECK(message_of([&] { read_file(folder / "folder"); }) ==
        (folder / "folder") + ": is a folder, not a file");
  // Root may open anything, but this file's first page cannot be read by anybody.
  CHECK(message_of([&] { read_file("/proc/self/mem"); }) ==
        "/proc/self/mem: cannot be read: Input/output error");
}

TEST_CASE("file: reading without permission is an error" * doctest::skip(::geteuid() == 0)) {
  const TemporaryFolder folder;
  write_file(folder / "secret", "x");
  fs::permissions(folder / "secret", fs::perms::none);
  CHECK(message_of([&] { read_file(folder / "secret"); }) ==
        (folder / "secret") + ": cannot be opened: Permission denied");
}

}  // namespace
}  // namespace tilegrad

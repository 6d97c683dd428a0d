#include "base/file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <string>

#include "base/error.h"

namespace tilegrad {
namespace {

namespace fs = std::filesystem;

// A fresh folder that disappears with its content.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "tilegrad_file_test_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  fs::path operator/(const char* name) const { return path_ / name; }
  std::ptrdiff_t entries() const {
    return std::distance(fs::directory_iterator(path_), fs::directory_iterator());
  }

 private:
  fs::path path_;
};

// While it lives, no file of this process may grow beyond some bytes: writing then fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_) == 0);
    const rlimit limit = {bytes, old_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, signal_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*signal_)(int);
  rlimit old_{};
};

std::string error_of(auto&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("file: what is written is read back, every byte of it") {
  const Folder folder;
  std::string content(100000, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i % 256);
  write_file(folder / "bytes", content);
  CHECK(read_file(folder / "bytes") == content);
  write_file(folder / "empty", "");
  CHECK(read_file(folder / "empty").empty());
}

TEST_CASE("file: writing replaces the old content and leaves nothing else behind") {
  const Folder folder;
  write_file(folder / "a", "the old and longer content");
  write_file(folder / "a", "new");
  CHECK(read_file(folder / "a") == "new");
  CHECK(folder.entries() == 1);
}

TEST_CASE("file: a reader that opened the old file keeps it whole while it is replaced") {
  const Folder folder;
  write_file(folder / "a", "old");
  std::ifstream reader(folder / "a");
  write_file(folder / "a", "new");
  std::string seen;
  reader >> seen;
  CHECK(seen == "old");
}

TEST_CASE("file: a failed write says why, keeps the old file and removes the temporary one") {
  const Folder folder;
  write_file(folder / "a", "old");
  std::string message;
  {
    const FileSizeLimit limit(1000);
    message = error_of([&] { write_file(folder / "a", std::string(5000, 'x')); });
  }
  CHECK(message == (folder / "a").string() + ": cannot be written: File too large");
  CHECK(read_file(folder / "a") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("file: a full disk is reported as such") {
  const Folder folder;
  // The temporary file that write_file opens leads to the device that is always full.
  fs::create_symlink("/dev/full", folder / "a.tmp");
  CHECK(error_of([&] { write_file(folder / "a", "x"); }) ==
        (folder / "a").string() + ": cannot be written: No space left on device");
  CHECK(folder.entries() == 0);
}

TEST_CASE("file: writing into a missing folder or over a folder is an error that names the path") {
  const Folder folder;
  CHECK(error_of([&] { write_file(folder / "missing/a", "x"); }) ==
        (folder / "missing/a").string() + ": cannot be written: No such file or directory");
  fs::create_directory(folder / "taken");
  CHECK(error_of([&] { write_file(folder / "taken", "x"); }) ==
        (folder / "taken").string() + ": cannot be written: Is a directory");
  CHECK(folder.entries() == 1);
}

TEST_CASE("file: reading what is missing, a folder or unreadable is an error that names the path") {
  const Folder folder;
  CHECK(error_of([&] { read_file(folder / "missing"); }) == (folder / "missing").string() + ": no such file");
  fs::create_directory(folder / "folder");
  CHECK(error_of([&] { read_file(folder / "folder"); }) ==
        (folder / "folder").string() + ": is a folder, not a file");
  // Root may open anything, but this file's first page cannot be read by anybody.
  CHECK(error_of([&] { read_file("/proc/self/mem"); }) ==
        "/proc/self/mem: cannot be read: Input/output error");
}

TEST_CASE("file: reading without permission is an error" * doctest::skip(::geteuid() == 0)) {
  const Folder folder;
  write_file(folder / "secret", "x");
  ::chmod((folder / "secret").c_str(), 0);
  CHECK(error_of([&] { read_file(folder / "secret"); }) ==
        (folder / "secret").string() + ": cannot be opened: Permission denied");
}

}  // namespace
}  // namespace tilegrad

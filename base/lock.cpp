#include "tilegrad/base/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include "tilegrad/base/error.h"
#include "tilegrad/base/file.h"

namespace tilegrad {

namespace {

// Whether the path still names the file that is open: its owner removes it when it is done.
bool is_current(const Descriptor& file, const std::filesystem::path& path) {
  struct stat open = {}, named = {};
  return ::fstat(file.get(), &open) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open.st_ino == named.st_ino && open.st_dev == named.st_dev;
}

std::string owner_of(const Descriptor& file) {
  std::array<char, 32> text{};
  const ssize_t n = ::pread(file.get(), text.data(), text.size(), 0);
  return n > 0 ? " " + std::string(text.data(), static_cast<std::size_t>(n)) : "";
}

Descriptor locked(const std::filesystem::path& folder, const std::filesystem::path& path) {
  for (;;) {
    Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    check(bool(file), "{}: cannot be written to: {}", folder.string(), std::strerror(errno));
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      check(errno != EWOULDBLOCK, "{}: is in use by process{}", folder.string(), owner_of(file));
      fail("{}: cannot be locked: {}", folder.string(), std::strerror(errno));
    }
    if (is_current(file, path)) return file;
  }
}

// Removes the temporary files of write_file() whose process was killed.
void sweep(const std::filesystem::path& folder) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    int process = 0;
    unsigned number = 0;
    const std::string name = entry.path().filename().string();
    const bool temporary = std::sscanf(name.c_str(), ".tilegrad-%d-%u.tmp", &process, &number) == 2;
    if (temporary && ::kill(process, 0) != 0 && errno == ESRCH) ::unlink(entry.path().c_str());
  }
}

}  // namespace

FolderLock::NewFolders::NewFolders(const std::filesystem::path& folder) {
  std::error_code error;
  for (auto path = folder; !path.empty() && !std::filesystem::exists(path, error); path = path.parent_path())
    paths.push_back(path);
}

FolderLock::NewFolders::~NewFolders() {
  for (const auto& folder : paths) ::rmdir(folder.c_str());  // fails, as it should, unless it is empty
}

FolderLock::FolderLock(const std::filesystem::path& folder) : file_(folder / ".lock"), made_here_(folder) {
  make_folder(folder);
  lock_ = locked(folder, file_);
  const std::string owner = std::to_string(::getpid());
  const bool written =
      ::ftruncate(lock_.get(), 0) == 0 && ::pwrite(lock_.get(), owner.data(), owner.size(), 0) > 0;
  if (!written) {
    const int error_number = errno;
    ::unlink(file_.c_str());
    fail("{}: cannot be written to: {}", folder.string(), std::strerror(error_number));
  }
  sweep(folder);
}

FolderLock::~FolderLock() { ::unlink(file_.c_str()); }

}  // namespace tilegrad

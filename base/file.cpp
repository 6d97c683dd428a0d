#include "tilegrad/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "tilegrad/base/descriptor.h"
#include "tilegrad/base/error.h"

namespace tilegrad {

namespace {

bool write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    content.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

// Writes what cannot be replaced: a device, a pipe.
bool write_in_place(const std::filesystem::path& path, std::string_view content) {
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && write_all(file.get(), content) && file.close();
}

// A new file with a name that nobody else uses.
Descriptor create_temporary(const std::filesystem::path& folder, std::filesystem::path& path) {
  static std::atomic<unsigned> number = 0;
  for (;;) {
    path = folder / fmt::format(".tilegrad-{}-{}.tmp", ::getpid(), ++number);
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (file || errno != EEXIST) return file;
  }
}

// `old` is the file to be replaced; nullptr if there is none.
bool replace(const std::filesystem::path& path, std::string_view content, const struct stat* old) {
  std::filesystem::path temporary;
  Descriptor file = create_temporary(path.parent_path(), temporary);
  if (!file) return false;
  const bool replaced = (old == nullptr || ::fchmod(file.get(), old->st_mode & 07777) == 0) &&
                        write_all(file.get(), content) && ::fsync(file.get()) == 0 && file.close() &&
                        ::rename(temporary.c_str(), path.c_str()) == 0;
  if (!replaced) {
    const int error = errno;
    ::unlink(temporary.c_str());
    errno = error;
  }
  return replaced;
}

// The file that a name stands for: what a link points to, even if that is missing. Empty, with errno set, if
// links form a cycle.
std::filesystem::path target_of(std::filesystem::path path) {
  constexpr int kMaxLinks = 40;
  for (int i = 0; i < kMaxLinks; ++i) {
    std::error_code not_a_link;
    const std::filesystem::path next = std::filesystem::read_symlink(path, not_a_link);
    if (not_a_link) return path;
    path = path.parent_path() / next;
  }
  errno = ELOOP;
  return {};
}

}  // namespace

std::string read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code ignored;
  check(!std::filesystem::is_directory(path, ignored), "{}: is a folder, not a file", path.string());
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  check(file || errno != ENOENT, "{}: no such file", path.string());
  check(bool(file), "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  std::string content;
  std::array<char, 1 << 16> piece;
  for (;;) {
    const ssize_t n = ::read(file.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0 || errno != EISDIR, "{}: is a folder, not a file", path.string());
    check(n >= 0, "{}: cannot be read: {}", path.string(), std::strerror(errno));
    if (n == 0) return content;
    content.append(piece.data(), static_cast<std::size_t>(n));
    check(content.size() <= max_bytes, "{}: is longer than {} bytes", path.string(), max_bytes);
  }
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path target = target_of(path);
  struct stat old = {};
  const bool exists = !target.empty() && ::stat(target.c_str(), &old) == 0;
  const bool written = !target.empty() &&
                       (exists && !S_ISREG(old.st_mode) ? write_in_place(target, content)
                                                        : replace(target, content, exists ? &old : nullptr));
  check(written, "{}: cannot be written: {}", path.string(), std::strerror(errno));
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, "{}: cannot be created: {}", folder.string(), error.message());
  check(::access(folder.c_str(), W_OK) == 0, "{}: cannot be written to: {}", folder.string(),
        std::strerror(errno));
}

}  // namespace tilegrad

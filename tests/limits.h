#pragma once

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>

#include "tilegrad/base/memory.h"

/// Limits that hold while an object lives.
namespace tilegrad::test {

/// Of tracked memory.
class MemoryLimit {
 public:
  explicit MemoryLimit(Index bytes) : outer_(memory::limit()) { memory::set_limit(bytes); }
  ~MemoryLimit() { memory::set_limit(outer_); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  Index outer_;
};

/// Of the size of any file that this process writes: beyond it writing fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &outer_) == 0);
    const rlimit limit = {bytes, outer_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &outer_);
    std::signal(SIGXFSZ, signal_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*signal_)(int);
  rlimit outer_{};
};

}  // namespace tilegrad::test

#pragma once

#include <filesystem>
#include <vector>

#include "tilegrad/base/descriptor.h"

namespace tilegrad {

/// Reserves a folder for this process: two runs that write into one folder would leave a mixture. The lock
/// ends with the process at the latest, however that ends.
class FolderLock {
 public:
  /// Creates the folder if it is missing. Throws Error with the number of the process that holds it, or if
  /// the folder is not writable.
  explicit FolderLock(const std::filesystem::path& folder);
  /// Removes the folder again, and those above it, that were created here and have nothing in them.
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  // Those that are missing at the beginning. It removes them again, empty ones, also if the lock fails half-way.
  struct NewFolders {
    explicit NewFolders(const std::filesystem::path& folder);
    ~NewFolders();
    std::vector<std::filesystem::path> paths;  // the folder itself first
  };

  std::filesystem::path file_;
  NewFolders made_here_;
  Descriptor lock_;
};

}  // namespace tilegrad

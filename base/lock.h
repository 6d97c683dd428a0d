#pragma once

#include <filesystem>

#include "tilegrad/base/descriptor.h"

namespace tilegrad {

/// Reserves a folder for this process: two runs that write into one folder would leave a mixture. The lock
/// ends with the process at the latest, however that ends.
class FolderLock {
 public:
  /// Creates the folder if it is missing. Throws Error with the number of the process that holds it, or if
  /// the folder is not writable.
  explicit FolderLock(const std::filesystem::path& folder);
  /// Removes the folder again if it was created here and nothing was put into it.
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  std::filesystem::path folder_, file_;
  bool made_here_;
  Descriptor lock_;
};

}  // namespace tilegrad

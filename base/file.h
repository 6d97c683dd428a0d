#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tilegrad {

/// The whole file. Throws Error "<path>: ..." if it is missing, a folder, or cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Replaces `path` by `content` atomically: a temporary file beside it is written, flushed to the disk and
/// renamed, so a reader or a crash sees the old file or the new one, never a half. Throws Error (disk full,
/// folder not writable) and then leaves the old file as it was.
void write_file(const std::filesystem::path& path, std::string_view content);

/// Makes a folder and its parents. Throws Error if that cannot be done or the folder is not writable.
void make_folder(const std::filesystem::path& folder);

}  // namespace tilegrad

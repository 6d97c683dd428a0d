#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace tilegrad {

/// The whole file. Throws Error "<path>: ..." if it is missing, a folder, longer than max_bytes, or cannot be read.
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes = SIZE_MAX);

/// Replaces `path` by `content` atomically: a temporary file beside it is written, flushed to the disk and
/// renamed, so a reader or a crash sees the old file or the new one, never a half. Throws Error (disk full,
/// folder not writable) and then leaves the old file as it was.
void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace tilegrad

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace tilegrad {

/// The whole file. Throws Error "<path>: ..." if it is missing, a folder, longer than max_bytes, or cannot be read.
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes = SIZE_MAX);

/// Replaces the content of a regular file atomically: a temporary file next to it is written, flushed to the
/// disk and renamed, so a reader, or a crash, finds the old content or the new one, never a part of it. The
/// mode is kept, and a symbolic link stays a link: the file that it names is replaced. Anything but a regular
/// file (a device, a pipe) is written in place. Throws Error (disk full, folder not writable) and then leaves
/// the old file as it was.
void write_file(const std::filesystem::path& path, std::string_view content);

/// Creates a folder and its parents. Throws Error if that is impossible or the folder is not writable.
void make_folder(const std::filesystem::path& folder);

}  // namespace tilegrad

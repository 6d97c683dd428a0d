#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <string_view>

#include "tilegrad/base/error.h"
#include "tilegrad/base/index.h"

/// The one allocator of tilegrad: tensors and the kernels' scratch come from here, so that memory can be
/// counted by what it is used for, limited, and reused from step to step. Thread-safe, also in a process that was
/// forked while other threads were running.
namespace tilegrad::memory {

enum class Category { parameters, gradients, optimizer, activations, workspace };
inline constexpr std::size_t kCategories = 5;
std::string_view to_string(Category category);

using ByCategory = std::array<Index, kCategories>;

/// Bytes in use. `at_peak` splits the highest total, so its entries sum to `peak`.
struct Usage {
  Index live = 0;
  Index peak = 0;
  ByCategory live_by_category{};
  ByCategory at_peak{};
};
Usage usage();

/// Lets the peak start again at what is live now.
void reset_peak();

/// Bytes that may be live at once: three quarters of the machine's memory unless set, so that a model that is
/// too large gets an Error before the system begins to swap.
Index limit();
void set_limit(Index bytes);

/// Called after every allocation and release, on the thread that did it and inside the allocator's lock: it
/// must be quick, and may not touch tracked memory itself.
using Observer = std::function<void(const Usage& usage)>;

/// While it lives, `observer` sees every change of the live bytes, of all threads. Of nested scopes only the
/// innermost one sees anything.
class ObserverScope {
 public:
  explicit ObserverScope(Observer observer);
  ~ObserverScope();
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;

 private:
  Observer outer_;
};

/// Whether freed blocks wait for requests of their size. Not under a sanitizer, which sees a use after free only if
/// freed memory is really freed.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kReuse = false;
#elif defined(__has_feature)
inline constexpr bool kReuse = !__has_feature(address_sanitizer);
#else
inline constexpr bool kReuse = true;
#endif

/// Gives freed blocks that wait for reuse back to the system, for a program that is done with a large model and
/// continues with something else.
void release_cached();

/// Thrown when an allocation would exceed the limit. A caller that has a fallback can catch it.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// Owns an uninitialised block, aligned to 64 bytes. Throws OutOfMemory with the requested and the live bytes
/// if it would not fit.
class Block {
 public:
  Block() = default;
  Block(Index bytes, Category category);
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;
  ~Block();

  std::byte* data() const { return data_; }
  Index bytes() const { return bytes_; }

 private:
  void release();

  std::byte* data_ = nullptr;
  Index bytes_ = 0;
  Category category_ = Category::activations;
};

/// The category of tensors made on this thread; activations unless a CategoryScope says otherwise.
Category current_category();

class CategoryScope {
 public:
  explicit CategoryScope(Category category);
  ~CategoryScope();
  CategoryScope(const CategoryScope&) = delete;
  CategoryScope& operator=(const CategoryScope&) = delete;

 private:
  Category outer_;
};

}  // namespace tilegrad::memory

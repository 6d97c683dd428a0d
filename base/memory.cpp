#include "tilegrad/base/memory.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tilegrad/base/control_group.h"
#include "tilegrad/base/error.h"
#include "tilegrad/base/format.h"

namespace tilegrad::memory {

namespace {

constexpr std::size_t kAlignment = 64;

// In debug builds fresh memory is NaN in every floating-point type and -1 in i32, so that a test notices what is read
// before it was written.
#if defined(NDEBUG)
constexpr bool kPoison = false;
#else
constexpr bool kPoison = true;
#endif
constexpr int kNanByte = 0xff;

Index rounded(Index bytes) {
  constexpr Index a = kAlignment;
  return (bytes + a - 1) / a * a;
}

// The memory of the machine, or of the container if that is less.
Index physical_memory() {
  const Index bytes = static_cast<Index>(sysconf(_SC_PHYS_PAGES)) * static_cast<Index>(sysconf(_SC_PAGESIZE));
  return std::min(bytes, control_group_limits().memory.value_or(bytes));
}

class Allocator {
 public:
  std::byte* allocate(Index bytes, Category category) {
    const std::lock_guard lock(mutex_);
    if (bytes > limit_ - usage_.live) refuse(bytes, "limit " + format_bytes(limit_));
    std::byte* data = take_cached(rounded(bytes));
    if (data == nullptr) data = from_system(rounded(bytes));
    if (data == nullptr) refuse(bytes, "the system has none left");
    count(bytes, category);
    return data;
  }

  void release(std::byte* data, Index bytes, Category category) {
    const std::lock_guard lock(mutex_);
    count(-bytes, category);
    if (!kReuse) {
      std::free(data);
      return;
    }
    cache_[rounded(bytes)].push_back(data);
    cached_ += rounded(bytes);
  }

  Usage usage() {
    const std::lock_guard lock(mutex_);
    return usage_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    usage_.peak = usage_.live;
    usage_.at_peak = usage_.live_by_category;
  }

  Index limit() {
    const std::lock_guard lock(mutex_);
    return limit_;
  }

  void set_limit(Index bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }

  void release_cached() {
    const std::lock_guard lock(mutex_);
    shrink_cache(0);
  }

  Observer exchange_observer(Observer observer) {
    const std::lock_guard lock(mutex_);
    return std::exchange(observer_, std::move(observer));
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  [[noreturn]] void refuse(Index bytes, std::string_view why) const {
    throw OutOfMemory(fmt::format("out of memory: {} requested, {} live, {}", format_bytes(bytes),
                                  format_bytes(usage_.live), why));
  }

  void count(Index bytes, Category category) {
    usage_.live += bytes;
    usage_.live_by_category[static_cast<std::size_t>(category)] += bytes;
    if (usage_.live > usage_.peak) {
      usage_.peak = usage_.live;
      usage_.at_peak = usage_.live_by_category;
      highest_ = std::max(highest_, usage_.peak);
    }
    if (observer_) observer_(usage_);
  }

  std::byte* take_cached(Index size) {
    const auto blocks = cache_.find(size);
    if (blocks == cache_.end() || blocks->second.empty()) return nullptr;
    std::byte* data = blocks->second.back();
    blocks->second.pop_back();
    cached_ -= size;
    return data;
  }

  // The cache must not make the process much larger than the live blocks ever made it.
  std::byte* from_system(Index size) {
    constexpr Index kSlack = Index{64} << 20;
    const Index allowed = std::min(limit_, highest_ + highest_ / 4 + kSlack);
    shrink_cache(std::max<Index>(0, allowed - usage_.live - size));
    const auto bytes = static_cast<std::size_t>(std::max<Index>(size, kAlignment));
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes));
    if (data != nullptr) return data;
    shrink_cache(0);
    return static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes));
  }

  // Gives blocks back, largest first, until at most `keep` bytes wait for reuse.
  void shrink_cache(Index keep) {
    while (cached_ > keep) {
      const auto largest = std::prev(cache_.end());
      if (largest->second.empty()) {
        cache_.erase(largest);
        continue;
      }
      std::free(largest->second.back());
      largest->second.pop_back();
      cached_ -= largest->first;
    }
  }

  std::mutex mutex_;
  Usage usage_;
  Index limit_ = physical_memory() / 4 * 3;
  Index highest_ = 0;  // the highest peak ever, which reset_peak() does not forget
  Index cached_ = 0;
  Observer observer_;
  std::map<Index, std::vector<std::byte*>> cache_;
};

// Never destroyed, because tensors with static lifetime may be released after it would be. No thread is in the middle
// of an allocation while the process forks, so that the child can allocate.
Allocator& allocator() {
  static auto* instance = new Allocator;
  [[maybe_unused]] static const int watching =
      pthread_atfork([] { instance->lock(); }, [] { instance->unlock(); }, [] { instance->unlock(); });
  return *instance;
}

thread_local Category category_in_force = Category::activations;

}  // namespace

std::string_view to_string(Category category) {
  // In the order of Category.
  constexpr std::array<std::string_view, kCategories> kNames = {"parameters", "gradients", "optimizer",
                                                                "activations", "workspace"};
  return kNames[static_cast<std::size_t>(category)];
}

Usage usage() { return allocator().usage(); }
void reset_peak() { allocator().reset_peak(); }
Index limit() { return allocator().limit(); }
void set_limit(Index bytes) { allocator().set_limit(bytes); }
void release_cached() { allocator().release_cached(); }

ObserverScope::ObserverScope(Observer observer)
    : outer_(allocator().exchange_observer(std::move(observer))) {}
ObserverScope::~ObserverScope() { allocator().exchange_observer(std::move(outer_)); }

Block::Block(Index bytes, Category category)
    : data_(allocator().allocate(bytes, category)), bytes_(bytes), category_(category) {
  if (kPoison) std::memset(data_, kNanByte, static_cast<std::size_t>(bytes));
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      category_(other.category_) {}

Block& Block::operator=(Block&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    category_ = other.category_;
  }
  return *this;
}

Block::~Block() { release(); }

void Block::release() {
  if (data_ != nullptr) allocator().release(data_, bytes_, category_);
}

Category current_category() { return category_in_force; }

CategoryScope::CategoryScope(Category category) : outer_(std::exchange(category_in_force, category)) {}
CategoryScope::~CategoryScope() { category_in_force = outer_; }

}  // namespace tilegrad::memory

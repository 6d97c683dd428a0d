#pragma once

#include <string_view>
#include <utility>

#include "tilegrad/base/index.h"

/// Who wants to know what ops cost listens here. Nobody does, as a rule, and then an op pays one test of a
/// pointer.
namespace tilegrad {

/// Sees the ops of one thread at work. Names live as long as the program.
class OpListener {
 public:
  virtual ~OpListener() = default;
  /// An op begins to go forward or backward; Tape::pass() knows which. What begins before its end is a part
  /// of it, as the ops are that a checkpoint runs again.
  virtual void begin(std::string_view op) = 0;
  /// The op that began last and has not ended yet is done; backward, it has also let go of what it saved.
  virtual void end() = 0;
  /// The tape took an op whose rule saves `saved_bytes`, counted as Saved::total_bytes() does.
  virtual void recorded(std::string_view op, Index saved_bytes) = 0;
};

/// `listener` hears the ops of this thread while it lives. Of nested scopes the innermost one hears alone.
class ListenScope {
 public:
  explicit ListenScope(OpListener& listener) : outer_(std::exchange(listening_, &listener)) {}
  ~ListenScope() { listening_ = outer_; }
  ListenScope(const ListenScope&) = delete;
  ListenScope& operator=(const ListenScope&) = delete;

  /// Whoever listens on this thread; nullptr: nobody.
  static OpListener* listening() { return listening_; }

 private:
  static inline constinit thread_local OpListener* listening_ = nullptr;
  OpListener* outer_;
};

/// Stands at the door of an op: the op lasts as long as the scope.
class OpScope {
 public:
  explicit OpScope(std::string_view op) : listener_(ListenScope::listening()) {
    if (listener_ != nullptr) listener_->begin(op);
  }
  ~OpScope() {
    if (listener_ != nullptr) listener_->end();
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  OpListener* listener_;
};

}  // namespace tilegrad

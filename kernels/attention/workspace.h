#pragma once

#include <initializer_list>
#include <vector>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/attention/schedule.h"
#include "tilegrad/kernels/attention/stages.h"
#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

/// Memory for the tasks of one call: every thread of a team, taken once, has the pieces that a struct of pointers
/// names, and marks for the stages of its tasks (stages.h).
///
///   struct Pieces { float *scores, *row; StageMarks stages; };
///   const Workspace<float, Pieces> workspace({{&Pieces::scores, n * m}, {&Pieces::row, n}});
///   workspace.run(tasks, [&](Index task, const Pieces& w) { w.row[0] = 1; });
template <class T, class Pieces>
class Workspace {
 public:
  struct Piece {
    T* Pieces::*pointer;
    Index elements;
  };

  explicit Workspace(std::initializer_list<Piece> pieces)
      : pieces_(pieces), size_(size_of(pieces)), team_(threads()), listening_(StageTimesScope::listening()) {
    if (listening_ != nullptr) clocks_.resize(static_cast<std::size_t>(team_));
    block_ = memory::Block(team_ * size_ * Index{sizeof(T)}, memory::Category::workspace);
  }

  ~Workspace() {
    for (const StageClock& clock : clocks_) *listening_ += clock.times();
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// Calls f(task, pieces of the thread) once for every task in [0, tasks), as parallel_tasks() does. All pieces
  /// begin at a multiple of 64 bytes.
  template <class F>
  void run(Index tasks, F&& f) const {
    parallel_tasks(
        tasks,
        [&](Index task, int thread) {
          const Pieces pieces = of(thread);
          pieces.stages.begin_task();
          f(task, pieces);
          pieces.stages.end_task();
        },
        team_);
  }

 private:
  Pieces of(int thread) const {
    Pieces result = {};
    if (listening_ != nullptr) result.stages = StageMarks(&clocks_[static_cast<std::size_t>(thread)]);
    T* next = reinterpret_cast<T*>(block_.data()) + thread * size_;
    for (const Piece& piece : pieces_) {
      result.*piece.pointer = next;
      next += padded(piece.elements);
    }
    return result;
  }
  static Index padded(Index elements) {
    constexpr Index kLine = 64 / sizeof(T);
    return ceil_div(elements, kLine) * kLine;
  }
  static Index size_of(std::initializer_list<Piece> pieces) {
    Index size = 0;
    for (const Piece& piece : pieces) size += padded(piece.elements);
    return size;
  }

  std::vector<Piece> pieces_;
  Index size_;
  int team_;
  memory::Block block_;
  StageTimes* listening_;                   // null: nobody does
  mutable std::vector<StageClock> clocks_;  // of the threads, if somebody listens
};

}  // namespace tilegrad::kernels

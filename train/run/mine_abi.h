#pragma once

// What the shared object of a learner's course (learn/mine.cpp) offers to the program: plain C, so that the two need
// not be built by the same compiler. All tensors are double, contiguous, (time, heads, dim) of one sequence.
//
// A function returns null, or a text that says what went wrong; it is valid until the next call.

#include <cstdint>

extern "C" {

struct TilegradMineShape {
  int tq, tk, heads, kv_heads, dim;
};

// Causal attention; the last query sees the last key. out and dq like q, lse (heads, tq), dk and dv like k.
const char* tilegrad_mine_forward(const TilegradMineShape* shape, const double* q, const double* k,
                                  const double* v, double* out, double* lse);
const char* tilegrad_mine_backward(const TilegradMineShape* shape, const double* dout, const double* q,
                                   const double* k, const double* v, const double* out, const double* lse,
                                   double* dq, double* dk, double* dv);

// A part of a model that maps n numbers to n numbers, as the learner's checkpoint calls it.
struct TilegradMineFunction {
  void* context;
  std::int64_t size;  // n
  // y = f(x) with this key. Returns null, or if `keep` is not 0 what backward needs, to be released by release().
  void* (*forward)(void* context, const double* x, std::uint64_t key, int keep, double* y);
  void (*backward)(void* context, void* kept, const double* dy, double* dx);
  void (*release)(void* kept);
  std::uint64_t (*next_key)(void* context);
};

// `kept` receives what the checkpoint keeps, to be freed by tilegrad_mine_checkpoint_free().
const char* tilegrad_mine_checkpoint_forward(const TilegradMineFunction* f, const double* x, double* y,
                                             void** kept);
const char* tilegrad_mine_checkpoint_backward(const TilegradMineFunction* f, const void* kept,
                                              const double* dy, double* dx);
void tilegrad_mine_checkpoint_free(void* kept);
}

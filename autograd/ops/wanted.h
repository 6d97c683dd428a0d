#pragma once

#include <span>

#include "tilegrad/autograd/tape.h"

/// Where a rule's kernel writes the gradients of several inputs: `grad` stays null if nobody needs it.
namespace tilegrad {

template <class T>
void take_wanted(InputGrads& dx, int i, std::span<T>& grad, Write& write) {
  if (!dx.needs(i)) return;
  const InputGrads::Slot slot = dx.slot(i);
  grad = slot.grad->mut<T>();
  write = slot.write;
}

template <class T>
void take_wanted(InputGrads& dx, int i, kernels::Mat<T>& grad, Write& write) {
  if (!dx.needs(i)) return;
  const InputGrads::Slot slot = dx.slot(i);
  grad = slot.grad->mut_mat<T>();
  write = slot.write;
}

}  // namespace tilegrad

#pragma once

// head_forward and head_backward of course.h, by the solutions of exercises 5 and 7. Which ones these are, the
// reference's or the learner's, decides whoever includes this after them.

namespace course {

void head_forward(Matrix out, Vector lse, ConstMatrix q, ConstMatrix k, ConstMatrix v, bool causal) {
  flash_forward(out, lse, q, k, v, causal, 16, 16);
}

void head_backward(Matrix dq, Matrix dk, Matrix dv, ConstMatrix dout, ConstMatrix q, ConstMatrix k,
                   ConstMatrix v, ConstMatrix out, ConstVector lse, bool causal) {
  flash_backward(dq, dk, dv, dout, q, k, v, out, lse, causal, 16, 16);
}

}  // namespace course

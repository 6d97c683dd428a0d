#include "tilegrad/train/labs/measurements.h"

#include "tilegrad/train/labs/checkpoint_measure.h"
#include "tilegrad/train/labs/flash_measure.h"
#include "tilegrad/train/labs/heads_measure.h"

namespace tilegrad::train {

namespace {

// A function of a typed task, as one of JSON.
template <class Arguments, class Result>
Measurement untyped(Result (*f)(const Arguments&)) {
  return [f](const Json& arguments, const CallTimer&) { return Json(f(arguments.get<Arguments>())); };
}
template <class Arguments, class Result>
Measurement untyped(Result (*f)(const Arguments&, const CallTimer&)) {
  return [f](const Json& arguments, const CallTimer& timer) {
    return Json(f(arguments.get<Arguments>(), timer));
  };
}

}  // namespace

const std::map<std::string, Measurement>& measurements() {
  static const std::map<std::string, Measurement> all = {
      {"machine", untyped(measure_machine)},       {"attention", untyped(measure_attention)},
      {"accuracy", untyped(measure_accuracy)},     {"format", untyped(measure_format)},
      {"training", untyped(measure_training)},     {"decoding", untyped(measure_decoding)},
      {"sharing", untyped(measure_sharing)},       {"learning", untyped(measure_learning)},
      {"conversion", untyped(measure_conversion)}, {"stages", untyped(measure_chain)},
      {"schedule", untyped(measure_schedule)}};
  return all;
}

}  // namespace tilegrad::train

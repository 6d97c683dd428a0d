#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tilegrad/data/batch.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// What the random numbers of a run are for: the numbers folded into its seed. Nothing else is random, so a
/// seed and a step are the whole state of the generator.
enum Purpose : std::uint64_t { kWeights = 0, kData = 1, kDropout = 2, kSampling = 3 };

/// The data of a run. Fills in the facts about the text in `config`; if they were there before, throws when
/// the file is no longer what it was. Throws if the context is too short for the task.
std::unique_ptr<data::Dataset> make_dataset(RunConfig& config);

/// Tokens as a person types and reads them, without needing the text again.
class Codec {
 public:
  virtual ~Codec() = default;
  virtual Index vocabulary() const = 0;
  virtual std::vector<std::int32_t> encode(const std::string& text) const = 0;
  virtual std::string decode(std::int32_t token) const = 0;
  /// A prompt for who has none: a line break, or the question of a held-out example.
  virtual std::vector<std::int32_t> default_prompt() const = 0;
};
std::unique_ptr<Codec> make_codec(const RunConfig& config);

}  // namespace tilegrad::train

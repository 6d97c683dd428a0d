#pragma once

#include <cstdint>
#include <memory>

#include "tilegrad/data/batch.h"
#include "tilegrad/data/codec.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// What the random numbers of a run are for: the numbers folded into its seed. Nothing else is random, so a
/// seed and a step are the whole state of the generator.
enum Purpose : std::uint64_t { kWeights = 0, kData = 1, kDropout = 2, kSampling = 3 };

/// The data of a run. Fills in the facts about the text in `config`; if they were there before, throws when
/// the file is no longer what it was. Throws if the context is too short for the task.
std::unique_ptr<data::Dataset> make_dataset(RunConfig& config);

/// The windows of the model's context in a whole text, which need not be the one that was learned, as held-out
/// data. Throws if it is too short for one, or has a byte that the model does not know.
std::unique_ptr<data::Dataset> make_held_out_text(const RunConfig& config, const std::string& file);

/// The tokens of a run as a person types and reads them, without needing the text again.
std::unique_ptr<data::Codec> make_codec(const RunConfig& config);

}  // namespace tilegrad::train

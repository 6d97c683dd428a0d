#pragma once

#include "tilegrad/train/report/page.h"
#include "tilegrad/train/run/inspection.h"

/// The page of `tilegrad look`: what a trained model does with one sequence.
namespace tilegrad::train {

/// One sequence, as a model reads it.
struct Look {
  const nn::Transformer& model;
  std::vector<std::string> symbols = {};  ///< every token of the vocabulary, as it is shown
  data::Batch sequence = {};              ///< B = 1; targets where it is known what follows
  Inspection inspection = {};             ///< of the sequence
  std::vector<HeadScores> scores = {};    ///< of the model's heads
  std::string scored = {};                ///< over what: "64 held-out examples"
};

/// The head with the highest induction score; null if no token comes twice.
const HeadScores* best_induction_head(const std::vector<HeadScores>& scores);

/// The scores of all heads, a row each.
Table heads_table(const Look& look);

/// One line: which head has the highest induction score.
std::string look_finding(const Look& look);

/// Attention, logit lens and scores; without a title, and without facts about the run.
Report look_page(const Look& look);

/// A byte of a text as one visible sign, or as \xE4 if it is no ASCII character.
std::string visible_byte(unsigned char byte);

}  // namespace tilegrad::train

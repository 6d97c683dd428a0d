#include "tilegrad/train/report/look_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tilegrad/train/report/column_meanings.h"

namespace tilegrad::train {

namespace {

std::string name_of(const HeadScores& s) { return fmt::format("layer {}, head {}", s.layer + 1, s.head + 1); }

std::string score_text(const std::optional<double>& score) {
  return score ? fmt::format("{:.3f}", *score) : "-";
}

std::vector<std::string> shown_tokens(const Look& look) {
  std::vector<std::string> tokens;
  for (const std::int32_t token : look.sequence.tokens) tokens.push_back(look.symbols[token]);
  return tokens;
}

// The last position at which an answer is asked for, or the last one.
Index last_asked(const data::Batch& sequence) {
  Index t = sequence.time - 1;
  while (t > 0 && sequence.targets[t] == data::kIgnored) --t;
  return sequence.targets[t] == data::kIgnored ? sequence.time - 1 : t;
}

// Rows of one sequence and head out of a tensor (1, Hq, T, ...).
std::vector<double> part_of(const Tensor& x, Index head) {
  const Index size = x.size() / x.dim(1);
  std::vector<double> part(size);
  for (Index i = 0; i < size; ++i) part[i] = x.at(head * size + i);
  return part;
}

AttentionView::Head head_view(const HeadScores& scores, const AttentionProbabilities& attention,
                              const Tensor& sinks) {
  AttentionView::Head head = {.kv_head = scores.kv_head, .p = part_of(attention.p, scores.head)};
  if (scores.induction) head.notes.push_back(fmt::format("induction {}", score_text(scores.induction)));
  if (scores.induction_at_answers) {
    head.notes.push_back(fmt::format("at the answers {}", score_text(scores.induction_at_answers)));
  }
  if (sinks.defined()) {
    head.sink = part_of(sinks, scores.head);
    const double sum = std::accumulate(head.sink.begin(), head.sink.end(), 0.0);
    head.notes.push_back(fmt::format("sink {:.1f} %", 100 * sum / static_cast<double>(head.sink.size())));
  }
  return head;
}

AttentionView attention_view(const Look& look) {
  const nn::TransformerConfig& config = look.model.config;
  AttentionView view = {.tokens = shown_tokens(look),
                        .window = config.attention.window,
                        .shown_query = last_asked(look.sequence)};
  if (const HeadScores* const best = best_induction_head(look.scores)) {
    view.shown_layer = best->layer;
    view.shown_head = best->head;
  }
  for (Index layer = 0; layer < config.layers; ++layer) {
    const AttentionProbabilities& attention = look.inspection.attention[layer];
    const Tensor sinks = sink_shares(look.model.blocks[layer].attention, attention);
    auto& heads = view.layers.emplace_back();
    for (Index h = 0; h < config.attention.heads; ++h) {
      heads.push_back(head_view(look.scores[layer * config.attention.heads + h], attention, sinks));
    }
  }
  return view;
}

// The likeliest tokens of position t, by the softmax of logits (1, T, V).
std::vector<LensView::Guess> guesses_of(const Tensor& logits, Index t,
                                        const std::vector<std::string>& symbols) {
  constexpr Index kGuesses = 5;
  const Index vocabulary = logits.dim(2);
  std::vector<double> p(vocabulary);
  for (Index i = 0; i < vocabulary; ++i) p[i] = logits.at(t * vocabulary + i);
  const double largest = *std::max_element(p.begin(), p.end());
  for (double& x : p) x = std::exp(x - largest);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  std::vector<Index> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  const Index count = std::min(kGuesses, vocabulary);
  std::partial_sort(order.begin(), order.begin() + count, order.end(),
                    [&](Index a, Index b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
  std::vector<LensView::Guess> guesses;
  for (Index i = 0; i < count; ++i) guesses.push_back({symbols[order[i]], p[order[i]] / sum});
  return guesses;
}

LensView lens_view(const Look& look) {
  const data::Batch& sequence = look.sequence;
  LensView view = {.tokens = shown_tokens(look), .shown_position = last_asked(sequence)};
  for (const std::int32_t target : sequence.targets) {
    view.next.push_back(target == data::kIgnored ? "" : look.symbols[target]);
  }
  for (std::size_t stage = 0; stage < look.inspection.lens.size(); ++stage) {
    view.stages.push_back(stage == 0 ? "embedding" : fmt::format("layer {}", stage));
    auto& positions = view.guesses.emplace_back();
    for (Index t = 0; t < sequence.time; ++t) {
      positions.push_back(guesses_of(look.inspection.lens[stage], t, look.symbols));
    }
  }
  return view;
}

}  // namespace

const HeadScores* best_induction_head(const std::vector<HeadScores>& scores) {
  const auto best =
      std::max_element(scores.begin(), scores.end(), [](const HeadScores& a, const HeadScores& b) {
        return a.induction.value_or(-1) < b.induction.value_or(-1);
      });
  return best == scores.end() || !best->induction ? nullptr : &*best;
}

Table heads_table(const Look& look) {
  const HeadScores& first = look.scores.front();
  Table table = {.title = "Where the heads look: means over " + look.scored,
                 .columns = {"head", "K/V head", "induction score"}};
  if (first.induction_at_answers) table.columns.push_back("at the answers");
  for (const char* column : {"previous token", "itself", "first token"}) table.columns.push_back(column);
  if (first.sink) table.columns.push_back("sink");
  for (const HeadScores& s : look.scores) {
    auto& row = table.rows.emplace_back();
    row = {name_of(s), fmt::format("{}", s.kv_head + 1), score_text(s.induction)};
    if (first.induction_at_answers) row.push_back(score_text(s.induction_at_answers));
    row.insert(row.end(), {score_text(s.previous), score_text(s.self), score_text(s.first)});
    if (first.sink) row.push_back(score_text(s.sink));
  }
  return table;
}

std::string look_finding(const Look& look) {
  const HeadScores* const best = best_induction_head(look.scores);
  if (best == nullptr) return "no token comes twice, so no head has an induction score";
  std::string finding =
      fmt::format("{} has the highest induction score, {}", name_of(*best), score_text(best->induction));
  if (best->induction_at_answers) {
    finding += fmt::format(" ({} where an answer is asked for)", score_text(best->induction_at_answers));
  }
  return finding;
}

Report look_page(const Look& look) {
  Report report = {.finding = look_finding(look), .tables = {heads_table(look)}};
  report.tables.push_back(column_meanings(report.tables));
  report.attention = attention_view(look);
  report.lens = lens_view(look);
  return report;
}

std::string visible_byte(unsigned char byte) {
  switch (byte) {
    case ' ':
      return "␣";
    case '\n':
      return "⏎";
    case '\t':
      return "⇥";
    default:
      return byte > 0x20 && byte < 0x7F ? std::string(1, static_cast<char>(byte))
                                        : fmt::format("\\x{:02X}", byte);
  }
}

}  // namespace tilegrad::train

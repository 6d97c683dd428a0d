#include "tilegrad/train/labs/heads_conversions.h"

#include <fmt/format.h>

namespace tilegrad::train {

std::vector<Column<ConversionRow>> conversion_columns() {
  const auto loss = [](std::size_t i) {
    return [i](const ConversionRow& r) { return r.conversion.losses[i]; };
  };
  const Show show = number("{:.4f}");
  return {{"to", "kind", &ConversionRow::kind},
          {"", "losses", [](const ConversionRow& r) { return r.conversion.losses; }},
          {"MHA", "", loss(0), show},
          {"right after", "", loss(1), show},
          {"+1 % steps", "", loss(2), show},
          {"+5 % steps", "", loss(3), show},
          {"+10 % steps", "", loss(4), show}};
}

std::string finding_of_conversions(const std::vector<ConversionRow>& rows) {
  std::string text;
  for (const ConversionRow& r : rows) {
    const std::vector<double>& losses = r.conversion.losses;
    text += fmt::format(
        "; pooled to {} the loss changes from {:.4f} to {:.4f}, and is {:.4f} after 10 % more steps", r.kind,
        losses[0], losses[1], losses.back());
  }
  return text;
}

}  // namespace tilegrad::train

#include "worker/data/resampling.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/random/philox.h"

namespace descent {

Resampling::Resampling(Kind kind, double ratio, uint64_t seed, std::shared_ptr<const RowClasses> classes)
    : seed_(seed), classes_(std::move(classes)) {
  DESCENT_CHECK(ratio > 0 && ratio <= 1);
  uint64_t least = UINT64_MAX, most = 0;
  for (const uint64_t rows : classes_->rows) {
    if (rows > 0) least = std::min(least, rows);
    most = std::max(most, rows);
  }
  for (const uint64_t rows : classes_->rows) {
    uint64_t target = rows;
    if (rows > 0 && kind == Kind::kOver) {
      target = std::max(rows, static_cast<uint64_t>(std::floor(ratio * static_cast<double>(most) + 0.5)));
    } else if (rows > 0) {
      target = std::min(rows, static_cast<uint64_t>(std::floor(static_cast<double>(least) / ratio + 0.5)));
    }
    target_.push_back(target);
    epoch_rows_ += target;
    if (rows > 0) most_copies_ = std::max(most_copies_, (target + rows - 1) / rows);
  }
}

std::vector<bool> Resampling::Extra(uint64_t epoch) const {
  const RandomStream random(seed_, Purpose::kResampling, epoch, 0);
  std::vector<uint64_t> left = classes_->rows, wanted;  // rows to come, and how many of them are chosen
  for (size_t k = 0; k < target_.size(); ++k) wanted.push_back(left[k] == 0 ? 0 : target_[k] % left[k]);
  std::vector<bool> extra(classes_->of_row.size());
  for (size_t row = 0; row < extra.size(); ++row) {
    const uint32_t k = classes_->of_row[row];
    if (wanted[k] > 0 && random.Below(row, left[k]) < wanted[k]) {
      extra[row] = true;
      --wanted[k];
    }
    --left[k];
  }
  return extra;
}

}  // namespace descent

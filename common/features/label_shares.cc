#include "common/features/label_shares.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_format.h"
#include "common/features/feature_statistics.h"

namespace descent {
namespace {

constexpr double kTold = 5;

std::vector<Moments> All(const std::vector<v1::FeatureStatistics>& shares) {
  std::vector<Moments> all(static_cast<size_t>(shares[0].count_size()));
  for (const v1::FeatureStatistics& share : shares) {
    for (size_t k = 0; k < all.size() && k < static_cast<size_t>(share.count_size()); ++k) {
      all[k].Merge(MomentsAt(share, static_cast<int>(k)));
    }
  }
  return all;
}

double MeanApart(const Moments& share, const Moments& all) {
  if (share.count == 0 || all.Deviation() == 0) return 0;
  return std::fabs(share.mean - all.mean) / (all.Deviation() / std::sqrt(static_cast<double>(share.count)));
}

// `worst` is the class that adds most.
double CountsApart(const v1::FeatureStatistics& share, const std::vector<Moments>& all, size_t* worst) {
  double chi_squared = 0, most = -1;
  int classes = 0;
  for (size_t k = 0; k < all.size(); ++k) {
    const auto n = static_cast<double>(share.count(static_cast<int>(k)));
    const double expected = n * all[k].mean;
    if (!(expected > 0)) continue;
    ++classes;
    const double apart = n * share.mean(static_cast<int>(k)) - expected;
    chi_squared += apart * apart / expected;
    if (apart * apart / expected > most) {
      most = apart * apart / expected;
      *worst = k;
    }
  }
  if (classes < 2) return 0;
  const double spread = 2.0 / (9.0 * (classes - 1));
  return (std::cbrt(chi_squared / (classes - 1)) - (1 - spread)) / std::sqrt(spread);
}

}  // namespace

std::string LabelSharesText(const std::vector<v1::FeatureStatistics>& shares) {
  if (shares.size() < 2 || shares[0].count_size() == 0) return "";
  const std::vector<Moments> all = All(shares);
  const bool classes = all.size() > 1;
  double most = 0;
  size_t rank = 0, column = 0;
  int differ = 0;
  for (size_t r = 0; r < shares.size(); ++r) {
    if (shares[r].count_size() != static_cast<int>(all.size())) continue;
    size_t worst = 0;
    const double apart = classes ? CountsApart(shares[r], all, &worst) : MeanApart(MomentsAt(shares[r], 0), all[0]);
    differ += apart >= kTold;
    if (apart > most) {
      most = apart;
      rank = r;
      column = worst;
    }
  }
  if (most < kTold) return "";
  const double here = shares[rank].mean(static_cast<int>(column)), everywhere = all[column].mean;
  const std::string what =
      classes ? absl::StrFormat("%.3g %% of them are of class %d, of all %.3g %%", 100 * here, column, 100 * everywhere)
              : absl::StrFormat("their mean is %.6g, of all %.6g", here, everywhere);
  return absl::StrFormat(
      "the labels of %d of %d ranks' shares differ from those of all by more than chance; most those of rank %d: %s",
      differ, shares.size(), rank, what);
}

}  // namespace descent

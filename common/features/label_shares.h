// Whether the labels of ranks' shares differ by more than chance explains: shards that are sorted by label, or skewed,
// make ranks push gradients that contradict each other. Pure; thread-safe.
//
// Of classes: Pearson's chi-squared of a share's counts against those that the shares of all classes together let
// expect, brought to a standard normal by Wilson and Hilferty, 1931. Of numbers: the distance of a share's mean from
// the mean of all, in standard errors. A share is told from 5 on, which chance all but never reaches.
#ifndef DESCENT_COMMON_FEATURES_LABEL_SHARES_H_
#define DESCENT_COMMON_FEATURES_LABEL_SHARES_H_

#include <string>
#include <vector>

#include "descent/v1/features.pb.h"

namespace descent {

// Statistics of the labels of each rank's share: of classes one column each, whose values are 1 for an example of the
// class and else 0; of numbers a single column. A sentence about the share that differs most; "": none does.
std::string LabelSharesText(const std::vector<v1::FeatureStatistics>& shares);

}  // namespace descent

#endif  // DESCENT_COMMON_FEATURES_LABEL_SHARES_H_

// The trials of `descent tune` as a picture. Pure.
#ifndef DESCENT_CLI_TUNE_PLOT_H_
#define DESCENT_CLI_TUNE_PLOT_H_

#include <string>
#include <vector>

#include "cli/tune_report.h"

namespace descent {

// An SVG with a panel for each field: its value across, the metric upwards, a point for each trial; the best is ringed,
// and a trial without a value is a cross at the top. Numbers above 0 that span more than a factor of 20 are on a
// logarithmic axis; values that are no numbers stand side by side. `ranked` as Ranked gives it.
std::string TunePlot(const std::vector<Trial>& ranked, const TuneMetric& metric);

}  // namespace descent

#endif  // DESCENT_CLI_TUNE_PLOT_H_

// Statistics of the training data on their way from workers to all workers: units of a pass are handed out to whoever
// asks, and merged in their order as they come, so that the total is the same bits whoever computed what. A unit that
// does not come is handed out again: computing it twice gives the same. Needs no registration, so it knows nothing of
// members, and a coordinator that takes the place of another begins anew.
//
// A pure machine, checks what comes. Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_STATISTICS_TABLE_H_
#define DESCENT_SERVER_COORDINATOR_STATISTICS_TABLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

class StatisticsTable {
 public:
  // Of a request whose protocol and job are the run's.
  v1::ShareStatisticsReply Share(const v1::ShareStatisticsRequest& request, absl::Time now);

  // Of the pass that is under way; "": none is.
  std::string ProgressText() const;
  // What a pass over labels has shown, once; "": nothing.
  std::string TakeWarning();

 private:
  struct Pass {
    bool labels = false;
    std::vector<absl::Time> handed_out;                         // per unit
    std::vector<std::optional<v1::FeatureStatistics>> waiting;  // for units before them; of labels: all
    uint32_t merged = 0;                                        // the units below
    uint32_t next = 0;                                          // the first that nobody has been given
    v1::FeatureStatistics total;
  };

  std::string Take(const v1::ShareStatisticsRequest& request, Pass* pass);
  static std::optional<uint32_t> HandOut(Pass* pass, absl::Time now);

  std::optional<uint64_t> data_;
  std::string data_host_;
  std::map<uint32_t, Pass> passes_;
  std::string warning_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_STATISTICS_TABLE_H_

// Which backups hold their primaries up. A primary answers nobody before its backup has confirmed; where the two can't
// reach each other, though both reach the coordinator, the run would stand still. Primaries report the first thing that
// is not confirmed; where that stays the same for long, the backup is to be given up, and may come again after a pause
// that grows each time, so that a bad connection does not cost a copy of all blocks every few seconds.
//
// Time is the coordinator's alone: neither a primary that was stopped nor a coordinator that was is taken for a backup
// that is silent, since reports that are far apart begin the count anew.
//
// Pure: the same calls, the same answers. Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_BACKUP_WATCH_H_
#define DESCENT_SERVER_COORDINATOR_BACKUP_WATCH_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/base/ids.h"

namespace descent {

class BackupWatch {
 public:
  static constexpr absl::Duration kFirstPause = absl::Seconds(10);
  static constexpr absl::Duration kLongestPause = absl::Minutes(10);
  static constexpr absl::Duration kReportGap = absl::Seconds(1);  // many beats

  // `patience`: how long a backup may confirm nothing.
  explicit BackupWatch(absl::Duration patience) : patience_(patience) {}

  // A report of the primary of `server`: the first thing that its backup of `view` has not confirmed (0: none). True:
  // it has been the same for longer than the patience.
  bool HoldsUp(ServerId server, uint64_t view, uint64_t unconfirmed, absl::Time now);

  // `backup` is given up. Returns for how long: kFirstPause, and twice as long as the last time where it did not stay
  // for longer than that.
  absl::Duration GaveUp(ServerId server, MemberId backup, absl::Time now);
  // Backups that were given up and whose pause is over.
  std::vector<std::pair<ServerId, MemberId>> Due(absl::Time now) const;
  // One of them is the server's backup again.
  void Back(ServerId server, MemberId backup, absl::Time now);

  // The member is gone; a generation ends.
  void Forget(MemberId member);
  void Clear();

 private:
  struct Wait {
    uint64_t view = 0, unconfirmed = 0;
    absl::Time since, told;
  };
  struct Absence {
    absl::Duration pause;
    absl::Time until;  // while it is away
    bool back = false;
    absl::Time since;  // it is back
  };
  const absl::Duration patience_;
  std::map<ServerId, Wait> waits_;
  std::map<std::pair<ServerId, MemberId>, Absence> absences_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_BACKUP_WATCH_H_

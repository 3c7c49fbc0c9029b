#include "tests/simulation/cluster_scenario.h"

namespace descent::simulation {
namespace {

void DrawTimes(Dice& dice, Blow* blow) {
  switch (blow->moment) {
    case Moment::kRunning:
      blow->after = dice.Between(absl::ZeroDuration(), absl::Milliseconds(2000));
      break;
    case Moment::kCutting:
      blow->after = dice.Between(absl::ZeroDuration(), absl::Milliseconds(400));
      break;
    case Moment::kPlacing:
    case Moment::kRestoring:
      blow->after = dice.Between(absl::ZeroDuration(), absl::Milliseconds(150));
      break;
    case Moment::kSaving:
      blow->after = dice.Between(absl::ZeroDuration(), absl::Milliseconds(30));
      break;
    case Moment::kJoining:  // the primary has to hear of it first
      blow->after = dice.Between(absl::ZeroDuration(), absl::Milliseconds(400));
      break;
    case Moment::kPromoting:
    case Moment::kAdopting:
      if (dice.Chance(0.5)) blow->after = dice.Between(absl::ZeroDuration(), absl::Milliseconds(100));
      break;
    case Moment::kCommitting:
    case Moment::kAlone:
      break;
  }
  blow->lasts = dice.Chance(0.3) ? dice.Between(absl::Milliseconds(1), absl::Milliseconds(100))
                                 : dice.Between(absl::Milliseconds(100), absl::Milliseconds(5000));
}

Blow MakeBlow(Dice& dice, bool first) {
  Blow blow;
  const uint64_t kind = dice.Below(21);
  using Kind = Blow::Kind;
  blow.kind = kind < 7    ? Kind::kKill
              : kind < 9  ? Kind::kKillTwo
              : kind < 12 ? Kind::kPause
              : kind < 14 ? Kind::kPartition
              : kind < 15 ? Kind::kPartitionOneWay
              : kind < 17 ? Kind::kPowerLoss
              : kind < 18 ? Kind::kDiskFull
              : kind < 19 ? Kind::kSyncFails
              : kind < 20 ? Kind::kRenameFails
                          : Kind::kBadByte;
  blow.role = static_cast<Role>(dice.Below(kRoles));
  // Nothing is restored before the first blow.
  const uint64_t moment = dice.Below(first ? 8 : 11);
  blow.moment = moment < 3    ? Moment::kRunning
                : moment == 3 ? Moment::kPlacing
                : moment == 4 ? Moment::kSaving
                : moment < 7  ? Moment::kCutting
                : moment == 7 ? Moment::kCommitting
                              : Moment::kRestoring;
  DrawTimes(dice, &blow);
  return blow;
}

// What replicas have to do with.
Blow MakeReplicaBlow(Dice& dice, bool first) {
  using Kind = Blow::Kind;
  Blow blow;
  const uint64_t kind = dice.Below(first ? 16 : 24);
  blow.role = Role::kServer;
  if (kind < 7) {
    blow.kind = Kind::kKill;
    blow.moment = dice.Chance(0.25) ? Moment::kCutting : Moment::kRunning;
  } else if (kind < 9) {
    blow.kind = Kind::kKill;
    blow.role = Role::kCoordinator;
  } else if (kind < 11) {
    blow.kind = Kind::kKillPair;
  } else if (kind < 13) {
    blow.kind = Kind::kPartitionPair;
  } else if (kind < 16) {
    blow.kind = Kind::kCutOff;
  } else {
    // In the middle of what the death before has begun.
    constexpr Moment kMoment[] = {Moment::kPromoting, Moment::kJoining, Moment::kAdopting};
    blow.kind = Kind::kKill;
    blow.moment = kMoment[dice.Below(3)];
    blow.role = dice.Chance(0.5) ? Role::kServer : static_cast<Role>(dice.Below(kRoles));
  }
  DrawTimes(dice, &blow);
  // Shorter and longer than the coordinator waits for a backup that confirms nothing.
  if (blow.kind == Kind::kPartitionPair) blow.lasts = dice.Between(absl::Milliseconds(100), absl::Seconds(8));
  if (blow.kind == Kind::kCutOff) blow.lasts = dice.Between(absl::Milliseconds(1100), absl::Milliseconds(3000));
  return blow;
}

Blow At(Blow::Kind kind, Role role, Moment moment, absl::Duration after, absl::Duration lasts) {
  Blow blow;
  blow.kind = kind;
  blow.role = role;
  blow.moment = moment;
  blow.after = after;
  blow.lasts = lasts;
  return blow;
}

// A backup that its primary can't reach for long is given up. Either nothing else comes, and it is taken back; or its
// primary dies, and what goes on must not be that backup.
void GiveBackupUp(Dice& dice, ClusterSchedule* s) {
  s->compute = dice.Between(absl::Milliseconds(200), absl::Milliseconds(260));  // the run is to last until then
  s->blows = {At(Blow::Kind::kPartitionPair, Role::kServer, Moment::kRunning,
                 dice.Between(absl::ZeroDuration(), absl::Seconds(1)),
                 dice.Between(absl::Seconds(3), absl::Seconds(6)))};
  if (dice.Chance(0.5)) return;
  s->blows.push_back(At(Blow::Kind::kKill, Role::kServer, Moment::kAlone,
                        dice.Between(absl::Milliseconds(300), absl::Milliseconds(1500)), absl::Milliseconds(500)));
}

// The coordinator dies, and the next one too while it goes on with what the servers hold.
void DieAdopting(Dice& dice, ClusterSchedule* s) {
  const auto die = [&](Moment moment, absl::Duration most) {
    return At(Blow::Kind::kKill, Role::kCoordinator, moment, dice.Between(absl::Milliseconds(10), most),
              dice.Between(absl::Milliseconds(50), absl::Milliseconds(400)));
  };
  s->blows = {die(Moment::kRunning, absl::Milliseconds(1500)), die(Moment::kAdopting, absl::Milliseconds(500))};
}

// The run is stopped: when nothing else happens, amid a cut, while a backup joins, with a death in the cut that it is
// stopped with, or among whatever else was drawn.
void StopRun(Dice& dice, ClusterSchedule* s) {
  using Kind = Blow::Kind;
  const auto stop = [&](Moment moment, absl::Duration most) {
    return At(Kind::kStop, Role::kCoordinator, moment, dice.Between(absl::ZeroDuration(), most), absl::ZeroDuration());
  };
  const auto server_dies = [&](Moment moment, absl::Duration most) {
    return At(Kind::kKill, Role::kServer, moment, dice.Between(absl::ZeroDuration(), most),
              dice.Between(absl::Milliseconds(50), absl::Milliseconds(800)));
  };
  switch (dice.Below(5)) {
    case 0:
      s->blows = {stop(Moment::kRunning, absl::Milliseconds(1500))};
      break;
    case 1:
      s->blows = {stop(Moment::kCutting, absl::Milliseconds(150))};
      break;
    case 2:
      s->blows = {stop(Moment::kRunning, absl::Milliseconds(1500))};
      if (s->replicas) {
        s->blows = {server_dies(Moment::kRunning, absl::Milliseconds(500)),
                    stop(Moment::kJoining, absl::Milliseconds(200))};
      }
      break;
    case 3:
      s->blows = {stop(Moment::kRunning, absl::Milliseconds(1500))};
      if (s->replicas) s->blows.push_back(server_dies(Moment::kSaving, absl::Milliseconds(100)));
      break;
    case 4:
      s->blows.push_back(stop(static_cast<Moment>(dice.Below(kMoments)), absl::Milliseconds(1500)));
      break;
  }
}

}  // namespace

Job MakeClusterJob(uint64_t seed, Dice& dice) {
  constexpr uint64_t kSync[] = {0, 6, 8, 14, 16, 22};
  Job job = MakeJob(dice.Chance(0.6) ? kSync[dice.Below(6)] : dice.Below(kJobs));
  // Not drawn, so that without them a seed stands for what it always stood for.
  const uint64_t special = HashKey(seed) % 10;
  if (special == 1 || special == 2) {
    job = MakeJob(kSync[HashKey(seed) / 10 % 6]);
    job.measures = true;
  }
  if (special != 0) return job;
  job = MakeJob(8);  // SYNC, by the sum: what a rank has contributed can be counted
  job.empty_batches = false;
  job.backup_ranks = 1;
  job.full_every = 7;
  return job;
}

ClusterSchedule MakeClusterSchedule(Dice& dice) {
  ClusterSchedule s;
  s.servers = 3 + static_cast<uint32_t>(dice.Below(2));
  s.workers = 2 + static_cast<uint32_t>(dice.Below(3));
  s.weather.delay = dice.Between(absl::Microseconds(50), absl::Milliseconds(3));
  s.weather.drop = dice.Chance(0.5) ? 0.03 * dice.Fraction() : 0;
  s.weather.duplicate = dice.Chance(0.5) ? 0.05 * dice.Fraction() : 0;
  s.weather.late = dice.Chance(0.5) ? 0.02 : 0;
  s.cut_every = 4 + dice.Below(9);
  s.keep = 1 + static_cast<uint32_t>(dice.Below(3));
  s.compute = dice.Between(absl::Milliseconds(10), absl::Milliseconds(40));
  s.pipelined = dice.Chance(0.4);
  s.max_payload_bytes = dice.Chance(0.2) ? 40 : size_t{1} << 20;
  s.send_window = 1 + static_cast<uint32_t>(dice.Below(4));
  // Not drawn, so that without them a seed stands for what it always stood for.
  s.replicas = HashKey(static_cast<uint64_t>(absl::ToInt64Nanoseconds(s.compute))) % 3 == 0;
  if (s.replicas) s.weather.call_resend = absl::Milliseconds(200);  // a server is missed after a second's silence
  const uint64_t blows = 1 + dice.Below(4);
  for (uint64_t i = 0; i < blows; ++i) {
    const bool of_replicas = s.replicas && dice.Chance(0.6);
    s.blows.push_back(of_replicas ? MakeReplicaBlow(dice, i == 0) : MakeBlow(dice, i == 0));
  }
  // What takes several blows in a row, or one of its own. By dice of its own, for the same reason.
  Dice story(HashKey(static_cast<uint64_t>(absl::ToInt64Nanoseconds(s.weather.delay))));
  switch (story.Below(12)) {
    case 0:
    case 1:
      StopRun(story, &s);
      break;
    case 2:
      if (s.replicas) GiveBackupUp(story, &s);
      break;
    case 3:
      if (s.replicas) DieAdopting(story, &s);
      break;
  }
  return s;
}

}  // namespace descent::simulation

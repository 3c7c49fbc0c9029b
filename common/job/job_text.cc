// Text, fingerprint and the plain readings of a resolved job.
#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "common/job/job.h"
#include "common/job/local_training_spec.h"
#include "google/protobuf/text_format.h"

namespace descent {

std::string JobText(const v1::JobSpec& job) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  DESCENT_CHECK(printer.PrintToString(job, &text));
  return text;
}

uint64_t JobFingerprint(const v1::JobSpec& job) {
  v1::JobSpec decides = job;
  decides.clear_cluster();
  decides.clear_limits();
  decides.clear_checkpoint();
  decides.clear_replicas();
  decides.clear_start_from();  // what it holds decides, and that is start_from_sha256
  if (decides.has_consistency() && decides.consistency().mode() == v1::SYNC) {
    decides.mutable_consistency()->clear_mode();  // said or not, it is the same job
  }
  if (decides.optimizer().has_momentum() && decides.optimizer().momentum().dampening() == 0) {
    decides.mutable_optimizer()->mutable_momentum()->clear_dampening();  // likewise
  }
  if (decides.model().linear().loss().has_squared()) decides.mutable_model()->mutable_linear()->clear_loss();
  if (const v1::Loss& loss = decides.model().mlp().loss(); loss.has_softmax() && loss.softmax().focal_gamma() == 0) {
    decides.mutable_model()->mutable_mlp()->clear_loss();
  }
  if (decides.has_data()) {
    decides.mutable_data()->clear_root();
    decides.mutable_data()->clear_cache_bytes();
    decides.mutable_data()->clear_cache_dir();
  }
  // FNV-1a over the text, which prints map entries by ascending key and numbers so that they read back the same.
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : JobText(decides)) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3u;
  }
  return hash;
}

Consistency ConsistencyOf(const v1::JobSpec& job) {
  const v1::Consistency& spec = job.consistency();
  Consistency result;
  switch (spec.mode()) {
    case v1::BOUNDED:
      result.staleness = spec.staleness();
      result.apply_push = true;
      break;
    case v1::ASYNC:
      result.staleness = kUnbounded;
      result.apply_push = true;
      break;
    case v1::CUSTOM:
      result.staleness = spec.unbounded() ? kUnbounded : spec.staleness();
      result.apply_push = spec.apply() == v1::PUSH;
      break;
    default:
      break;  // SYNC
  }
  result.reduce_sum = spec.reduce() == v1::SUM;
  if (spec.change_size() > 0) result.changes.push_back({0, result.staleness});
  for (const v1::StalenessChange& change : spec.change()) {
    result.changes.push_back({change.from_round(), change.staleness()});
    result.staleness = std::max(result.staleness, change.staleness());
  }
  result.staleness_aware_rate = spec.staleness_aware_rate();
  result.compensation = spec.delay_compensation().lambda();
  result.mean_square_decay = spec.delay_compensation().mean_square_decay();
  result.backup_ranks = spec.backup_ranks();
  result.finish_late = spec.backup_ranks() > 0 && spec.late() == v1::FINISH;
  return result;
}

uint64_t ClocksPerEpoch(const v1::JobSpec& job, uint64_t rows) {
  const uint64_t ranks = std::max<uint64_t>(1, job.ranks()), batch = std::max<uint64_t>(1, RowsPerClock(job));
  const uint64_t share = rows / ranks + (rows % ranks != 0);
  return std::max<uint64_t>(1, share / batch + (share % batch != 0));
}

uint64_t ClocksOf(const v1::JobSpec& job, uint64_t clocks_per_epoch) {
  if (job.length_case() != v1::JobSpec::kEpochs) return std::max<uint64_t>(1, job.rounds());
  return std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(job.epochs() * static_cast<double>(clocks_per_epoch))));
}

uint64_t RoundsOf(double epochs, uint64_t clocks_per_epoch) {
  return std::max<uint64_t>(1, static_cast<uint64_t>(epochs * static_cast<double>(clocks_per_epoch) + 0.5));
}

uint64_t EvaluateEvery(const v1::Evaluation& evaluation, uint64_t clocks_per_epoch) {
  if (evaluation.every_rounds() > 0) return evaluation.every_rounds();
  if (evaluation.every_epochs() <= 0) return 0;
  return RoundsOf(evaluation.every_epochs(), clocks_per_epoch);
}

WireEncoding EncodingOf(const v1::JobSpec& job) { return static_cast<WireEncoding>(job.encoding()); }

Geometry GeometryOf(const v1::JobSpec& job) {
  Geometry geometry;
  if (job.block_elements() != 0) geometry.block_elements = job.block_elements();
  if (job.slots() != 0) geometry.slots = job.slots();
  return geometry;
}

}  // namespace descent

// What a resolved job must hold, checked as a whole: all errors at once, by field path.
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/job/batch_norm_spec.h"
#include "common/job/evaluation_spec.h"
#include "common/job/features_spec.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/job_errors.h"
#include "common/job/learning_rate_spec.h"
#include "common/job/local_training_spec.h"
#include "common/job/model_spec.h"
#include "common/job/optimizer_spec.h"
#include "common/job/resampling_spec.h"
#include "common/job/step_spec.h"
#include "common/job/stopping_spec.h"

namespace descent {
namespace {

class Checker : private JobErrors {
 public:
  explicit Checker(const v1::JobSpec& job) : job_(job) {}

  absl::Status Run() {
    Plain(job_, "");
    Top();
    CheckModel(job_.model(), this);
    CheckBatchNorm(job_, this);
    if (job_.has_class_weights()) CheckClassWeights(job_.class_weights(), job_.model(), this);
    Data();
    if (job_.data().has_features()) CheckFeatures(job_, this);
    ConsistencyMode();
    Rule();
    EvaluationAndCluster();
    Replicas();
    return status();
  }

 private:
  void Top() {
    bool good_name =
        !job_.name().empty() && job_.name().size() <= 100 && job_.name()[0] != '.' && job_.name()[0] != '-';
    for (const char c : job_.name()) good_name &= absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
    if (!good_name) {
      Error("name", "`", job_.name(), "` names folders, so it takes 1 to 100 letters, digits, `-`, `_` and `.`, and ",
            "begins with neither `.` nor `-`");
    }
    Range<uint64_t>("ranks", job_.ranks(), 1, 65536);
    Range<uint64_t>("batch_size", job_.batch_size(), 1, uint64_t{1} << 24);
    switch (job_.length_case()) {
      case v1::JobSpec::kEpochs:
        Positive("epochs", job_.epochs());
        if (!ReadsData()) Error("epochs", "the model reads no data, so it has no epochs: set rounds");
        if (std::isfinite(job_.epochs()) && job_.epochs() > 1e9) Error("epochs", job_.epochs(), " is more than 1e9");
        break;
      case v1::JobSpec::kRounds:
        Range<uint64_t>("rounds", job_.rounds(), 1, uint64_t{1} << 48);
        break;
      default:
        Error("rounds", "the length is missing: the model reads no data, so it has no epochs");
    }
    if (std::isfinite(job_.l2()) && job_.l2() < 0) Error("l2", job_.l2(), " is below 0");
    if (job_.start_from().empty() && (job_.start_from_partial() || !job_.start_from_sha256().empty())) {
      Error("start_from", "missing: the model that start_from_partial and start_from_sha256 are of");
    }
    Range<uint64_t>("block_elements", job_.block_elements(), 1, 262144);
    BlockImages();
    Range<uint64_t>("slots", job_.slots(), 1, 1 << 20);
    if ((job_.slots() & (job_.slots() - 1)) != 0) Error("slots", job_.slots(), " is not a power of two");
    Range<uint64_t>("metrics.every_rounds", job_.metrics().every_rounds(), 1, uint64_t{1} << 48);
    if (job_.metrics().gradient_histograms() && ConsistencyOf(job_).apply_push) {
      Error("metrics.gradient_histograms", "are of rounds: with apply PUSH there are none");
    }
  }

  // A block goes in one message, with its state, to checkpoints and backups.
  void BlockImages() {
    constexpr uint64_t kMessage = uint64_t{4} << 20, kBeside = uint64_t{64} << 10, kMark = 10;
    const uint64_t room = kMessage - kBeside - kMark * std::min<uint64_t>(job_.ranks(), 65536);
    const uint64_t vectors =
        1 + uint64_t{StateSlots(job_.optimizer())} + StateBesideRule(job_) + (EvaluatesAverages(job_) ? 1 : 0);
    const uint64_t most = room / (vectors * sizeof(float));
    if (job_.block_elements() > most) {
      Error("block_elements", job_.block_elements(), " parameters with ", vectors - 1,
            " further vectors of each are more ", "than goes into a message: at most ", most);
    }
  }

  bool ReadsData() const { return descent::ReadsData(job_.model()); }
  bool SparseTable() const { return HasTable(job_.model()); }
  uint32_t Classes() const { return ClassesOf(job_.model()); }

  void Paths(const std::string& path, const google::protobuf::RepeatedPtrField<std::string>& files) {
    if (files.empty()) Error(path, "missing: a file or a pattern");
    for (const std::string& file : files) {
      if (file.empty()) Error(path, "an empty name");
    }
  }

  void Data() {
    if (!ReadsData()) {
      if (job_.data().has_train() || job_.data().has_validation()) Error("data", "the model reads no data");
      return;
    }
    if (job_.model().kind_case() == v1::ModelSpec::KIND_NOT_SET) return;
    if (!job_.data().has_train()) Error("data.train", "missing: the model trains on data");
    if (job_.data().has_train()) DataFiles("data.train", job_.data().train());
    if (job_.data().has_validation()) DataFiles("data.validation", job_.data().validation());
    const v1::Dataset& train = job_.data().train();
    const v1::Dataset& validation = job_.data().validation();
    if (train.has_libsvm() && validation.has_libsvm() && train.libsvm().features() != validation.libsvm().features()) {
      Error("data.validation.libsvm.features", validation.libsvm().features(), ", but data.train.libsvm.features is ",
            train.libsvm().features());
    }
    if (train.has_libsvm() && validation.has_libsvm() &&
        train.libsvm().zero_based() != validation.libsvm().zero_based()) {
      Error("data.validation.libsvm.zero_based", "differs from data.train.libsvm.zero_based");
    }
    if (job_.has_data()) {
      Range<uint64_t>("data.shard_rows", job_.data().shard_rows(), 1, 65536);
      Range<uint64_t>("data.window_shards", job_.data().window_shards(), 1, 65536);
      CheckResampling(job_, this);
    }
  }

  void DataFiles(const std::string& path, const v1::Dataset& dataset) {
    switch (dataset.format_case()) {
      case v1::Dataset::FORMAT_NOT_SET:
        Error(path, "missing: one of idx, libsvm, csv");
        return;
      case v1::Dataset::kIdx:
        if (dataset.idx().images().empty()) Error(path + ".idx.images", "missing: a file");
        if (dataset.idx().labels().empty()) Error(path + ".idx.labels", "missing: a file");
        break;
      case v1::Dataset::kLibsvm:
        Paths(path + ".libsvm.path", dataset.libsvm().path());
        if (dataset.libsvm().features() == 0 && !SparseTable() && !job_.model().has_custom()) {
          Error(path + ".libsvm.features", "missing: how many there are (only a sparse_table does without)");
        }
        break;
      case v1::Dataset::kCsv:
        CsvFiles(path + ".csv", dataset.csv());
        break;
    }
    if (SparseTable() && !dataset.has_libsvm()) {
      Error(path, "dense data, but the model's weights are a sparse_table, which takes libsvm");
    }
  }

  void CsvFiles(const std::string& path, const v1::Csv& csv) {
    Paths(path + ".path", csv.path());
    if (csv.delimiter().size() != 1 || csv.delimiter() == "\"" || csv.delimiter() == "\n" || csv.delimiter() == "\r") {
      Error(path + ".delimiter", "`", csv.delimiter(), "` is not one character other than a quote or a line's end");
    }
    for (const auto& [field, name] : {std::pair{".label", csv.label()}, std::pair{".weight", csv.weight()}}) {
      uint32_t column;
      if (!csv.header() && !name.empty() && !absl::SimpleAtoi(name, &column)) {
        Error(path + field, "`", name, "` is a name, but there is no header: a column's number from 0");
      }
    }
    if (csv.log_label() && (Classes() != 0 || csv.label_map_size() != 0)) {
      Error(path + ".log_label", "the labels are classes");
    }
    if (csv.label_map_size() != 0 && Classes() == 0 && !job_.model().has_custom()) {
      Error(path + ".label_map", "names classes, but the model's labels are numbers");
    }
    const std::set<std::string> names = [&csv] {
      std::set<std::string> sorted;
      for (const auto& entry : csv.label_map()) sorted.insert(entry.first);
      return sorted;
    }();
    for (const std::string& name : names) {
      const int64_t index = csv.label_map().at(name);
      if (index < 0 || (Classes() != 0 && index >= Classes())) {
        Error(absl::StrCat(path, ".label_map[", name, "]"), index, " is no class",
              Classes() == 0 ? "" : absl::StrCat(" from 0 to ", Classes() - 1));
      }
    }
  }

  void ConsistencyMode() {
    const v1::Consistency& spec = job_.consistency();
    const std::string mode = v1::Mode_IsValid(spec.mode()) ? v1::Mode_Name(spec.mode()) : "";
    if (mode.empty()) return;
    constexpr uint64_t kMostStaleness = 1000000;
    if (spec.mode() == v1::BOUNDED && spec.staleness() == 0) {
      Error("consistency.staleness", "missing: BOUNDED needs a bound of at least 1 (mode CUSTOM takes 0)");
    }
    if ((spec.mode() == v1::SYNC || spec.mode() == v1::ASYNC) && spec.staleness() != 0) {
      Error("consistency.staleness", spec.staleness(), " contradicts mode ", mode,
            spec.mode() == v1::SYNC ? ", whose reads are never stale" : ", which has no bound");
    }
    if (spec.staleness() > kMostStaleness) {
      Error("consistency.staleness", spec.staleness(), " is above ", kMostStaleness, "; ASYNC has no bound");
    }
    uint64_t last = 0;
    for (const v1::StalenessChange& change : spec.change()) {
      if (spec.mode() == v1::SYNC || ConsistencyOf(job_).staleness == kUnbounded) {
        Error("consistency.change", "is of a bound; mode ", mode, " has none that could change");
        break;
      }
      Range<uint64_t>("consistency.change.from_round", change.from_round(), last + 1, uint64_t{1} << 48);
      Range<uint64_t>("consistency.change.staleness", change.staleness(), 0, kMostStaleness);
      last = std::max(last, change.from_round());
    }
    if (spec.mode() != v1::CUSTOM && spec.unbounded()) Error("consistency.unbounded", "is for mode CUSTOM, not ", mode);
    if (spec.mode() == v1::SYNC && spec.apply() == v1::PUSH) {
      Error("consistency.apply", "PUSH contradicts mode SYNC, which applies by round");
    }
    if (spec.mode() == v1::CUSTOM && spec.unbounded() && spec.staleness() != 0) {
      Error("consistency.staleness", spec.staleness(), " contradicts unbounded");
    }
    if (spec.mode() == v1::CUSTOM && spec.unbounded() && spec.apply() == v1::ROUND) {
      Error("consistency.unbounded", "rounds need a bound: a server holds the contributions of every open round");
    }
    if (spec.reduce() == v1::SUM && ConsistencyOf(job_).apply_push) {
      Error("consistency.reduce", "SUM is for apply ROUND: with PUSH nothing is reduced");
    }
    if (spec.backup_ranks() > 0 && spec.mode() != v1::SYNC) {
      Error("consistency.backup_ranks", "is for mode SYNC, not ", mode);
    } else if (spec.backup_ranks() > 0 && spec.backup_ranks() >= job_.ranks()) {
      Error("consistency.backup_ranks", spec.backup_ranks(), " is not below the number of ranks, ", job_.ranks());
    }
    if (spec.late() == v1::FINISH && spec.backup_ranks() == 0) {
      Error("consistency.late", "FINISH is for jobs with consistency.backup_ranks: no rank is late without them");
    }
  }

  void Rule() {
    if (!TakesFullGradient(job_.optimizer())) CheckLearningRate(job_.learning_rate(), ReadsData(), this);
    CheckFullGradient(job_, this);
    CheckLocalTraining(job_, this);
    CheckOptimizer(job_.optimizer(), this);
    CheckSteps(job_, ReadsData(), SparseTable(), this);
    if ((job_.optimizer().has_adamw() || job_.optimizer().has_lamb()) && job_.l2() > 0) {
      const char* rule = job_.optimizer().has_lamb() ? "lamb" : "adamw";
      Error("l2", job_.l2(), " beside ", rule, ", which decays by optimizer.", rule, ".weight_decay alone");
    }
    const bool falls = job_.learning_rate().schedule_case() > v1::LearningRate::kConstant ||
                       job_.learning_rate().warmup_case() != v1::LearningRate::WARMUP_NOT_SET;
    if (job_.optimizer().has_ftrl() && falls) {
      Error("learning_rate", "ftrl takes a constant, its alpha: the rate of each parameter falls by itself");
    }
  }

  void Replicas() {
    if (job_.replicas() > 1) Error("replicas", job_.replicas(), " is above 1: a server has one backup or none");
    if (job_.replicas() > 0 && job_.cluster().servers() < 2) {
      Error("replicas", "a backup is another server: cluster.servers is ", job_.cluster().servers(),
            "; expected at least 2");
    }
  }

  void EvaluationAndCluster() {
    const v1::Evaluation& evaluation = job_.evaluation();
    if (evaluation.every_case() == v1::Evaluation::kEveryEpochs) {
      Positive("evaluation.every_epochs", evaluation.every_epochs());
      if (!ReadsData()) Error("evaluation.every_epochs", "the model reads no data, so it has no epochs");
    }
    if (evaluation.every_case() == v1::Evaluation::kEveryRounds) {
      Range<uint64_t>("evaluation.every_rounds", evaluation.every_rounds(), 1, uint64_t{1} << 48);
    }
    if (evaluation.every_case() != v1::Evaluation::EVERY_NOT_SET && ReadsData() && !job_.data().has_validation() &&
        !evaluation.objective()) {
      Error("evaluation", "nothing to evaluate: neither data.validation nor evaluation.objective is there");
    }
    if (evaluation.objective() && !ReadsData()) Error("evaluation.objective", "the model reads no data");
    Range<uint64_t>("evaluation.batch_size", evaluation.batch_size(), 1, uint64_t{1} << 24);
    CheckEvaluationMetrics(job_, this);
    CheckStopping(job_, this);

    Positive("checkpoint.every_seconds", job_.checkpoint().every_seconds(), /*or_zero=*/true);
    const Consistency consistency = ConsistencyOf(job_);
    if (job_.checkpoint().keep_best() > 0 && (consistency.apply_push || consistency.staleness > 0)) {
      Error("checkpoint.keep_best", "is for mode SYNC: otherwise what was evaluated is not what a checkpoint has");
    }

    const v1::Cluster& cluster = job_.cluster();
    Range<uint64_t>("cluster.servers", cluster.servers(), 1, 65536);
    Range<uint64_t>("cluster.workers", cluster.workers(), 1, 65536);
    Positive("cluster.lease_seconds", cluster.lease_seconds());
    Positive("cluster.start_timeout_seconds", cluster.start_timeout_seconds());
    Positive("cluster.stall_timeout_seconds", cluster.stall_timeout_seconds());
  }

  const v1::JobSpec& job_;
};

}  // namespace

absl::Status ValidateJob(const v1::JobSpec& job) { return Checker(job).Run(); }

}  // namespace descent

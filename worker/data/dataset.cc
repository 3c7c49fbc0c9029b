#include "worker/data/dataset.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "descent/v1/job.pb.h"
#include "worker/data/dataset_cache.h"
#include "worker/data/file_fingerprint.h"
#include "worker/data/read_rows.h"
#include "worker/data/source.h"

namespace descent {
namespace {

class DatasetImpl final : public Dataset {
 public:
  DatasetImpl(const v1::Dataset& spec, const DatasetOptions& options) : spec_(spec), options_(options) {
    if (options_.shard_rows == 0 || options_.shard_rows > kMostShardRows) options_.shard_rows = kMostShardRows;
    if (options_.cache_bytes == 0) options_.cache_bytes = DatasetOptions().cache_bytes;
  }

  absl::Status Open() {
    DESCENT_ASSIGN_OR_RETURN(sources_, ListSource(spec_, options_));
    if (options_.cache_dir.empty()) return Build("no cache folder is given");
    const absl::StatusOr<std::string> memory = DatasetCache::Prepare(options_.cache_dir);
    if (!memory.ok()) return Build(memory.status().message());
    std::string description = DescribeParse(spec_, options_);
    for (const SourceFile& source : sources_) {
      DESCENT_ASSIGN_OR_RETURN(const FileFingerprint print, FingerprintFile(source.path, source.name, *memory));
      absl::StrAppend(&description, "\n", print.bytes, " ", absl::Hex(print.crc32c, absl::kZeroPad8));
      prints_.push_back(print);
    }
    auto cache = DatasetCache::Open(options_.cache_dir, description, options_.cache_bytes);
    if (absl::IsDeadlineExceeded(cache.status())) return cache.status();
    if (!cache.ok()) return Build(cache.status().message());
    cache_ = *std::move(cache);
    if (UseManifest()) return absl::OkStatus();
    auto lock = cache_->LockBuild();
    if (absl::IsDeadlineExceeded(lock.status())) return lock.status();
    if (!lock.ok()) {
      cache_ = nullptr;
      return Build(lock.status().message());
    }
    if (UseManifest()) return absl::OkStatus();  // made by whoever held the lock
    build_lock_ = std::move(*lock);
    absl::Status status = cache_->BeginBuild();
    std::string why;
    if (!status.ok()) {
      why = std::string(status.message());
      cache_ = nullptr;
    }
    status = Build(why);
    if (!status.ok() && cache_ != nullptr) cache_->AbandonBuild();
    build_lock_ = nullptr;
    return status;
  }

  uint64_t rows() const override { return begin_.back(); }
  uint64_t features() const override { return options_.keys ? 0 : manifest_.shape.features; }
  bool sparse() const override { return manifest_.shape.kind == ShardKind::kSparse; }
  absl::Span<const DataFileInfo> files() const override { return manifest_.files; }
  absl::Span<const DataColumn> columns() const override { return manifest_.columns; }
  uint32_t shards() const override { return static_cast<uint32_t>(begin_.size() - 1); }
  uint64_t shard_begin(uint32_t shard) const override { return begin_[shard]; }

  std::vector<std::string> Notes() const override ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(&mu_);
    return notes_;
  }

  absl::Status Read(absl::Span<const uint64_t> rows, Batch* batch) const override {
    std::vector<std::shared_ptr<const Shard>> held(shards());
    std::vector<RowAt> at(rows.size());
    uint32_t shard = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const uint64_t row = rows[i];
      if (row >= begin_.back()) {
        return absl::OutOfRangeError(absl::StrCat("row ", row, " of data with ", begin_.back(), " rows"));
      }
      if (row < begin_[shard] || row >= begin_[shard + 1]) {
        shard = static_cast<uint32_t>(std::upper_bound(begin_.begin(), begin_.end(), row) - begin_.begin() - 1);
      }
      if (held[shard] == nullptr) {
        DESCENT_ASSIGN_OR_RETURN(held[shard], ShardAt(shard));
      }
      at[i] = {held[shard].get(), static_cast<uint32_t>(row - begin_[shard])};
    }
    if (!sparse()) {
      AssembleDense(at, manifest_.shape.features, batch);
    } else if (options_.keys) {
      AssembleKeyed(at, options_.geometry, batch);
    } else {
      AssembleSparse(at, manifest_.shape.features, batch);
    }
    return absl::OkStatus();
  }

 private:
  static constexpr uint32_t kMostShardRows = 65536;

  struct Resident {
    std::shared_ptr<const Shard> shard;
    uint64_t used = 0;
  };

  bool UseManifest() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::StatusOr<DatasetManifest> manifest = cache_->Load();
    if (!manifest.ok() || manifest->files.size() != sources_.size()) return false;
    manifest_ = *std::move(manifest);
    for (size_t i = 0; i < sources_.size(); ++i) manifest_.files[i].name = sources_[i].name;
    SetBegins();
    MutexLock lock(&mu_);
    resident_.resize(manifest_.shards.size());
    return true;
  }

  void SetBegins() {
    begin_.assign(1, 0);
    for (const DatasetManifest::Shard& shard : manifest_.shards) begin_.push_back(begin_.back() + shard.rows);
  }

  // Parses the files. Shards stay in memory as far as they fit and go to the cache, unless `no_cache` says why not.
  absl::Status Build(absl::string_view no_cache) ABSL_LOCKS_EXCLUDED(mu_) {
    std::string why(no_cache);
    bool dropped = false;
    std::vector<Resident> kept;
    uint64_t kept_bytes = 0;
    auto emit = [&](uint32_t index, std::shared_ptr<const Shard> shard) -> absl::Status {
      const uint64_t bytes = shard->bytes().size();
      manifest_.shards.push_back({shard->rows(), bytes, shard->crc32c()});
      if (cache_ != nullptr) {
        absl::Status put = cache_->Put(index, *shard);
        if (put.ok()) {
          build_lock_->Progress();
        } else {
          why = std::string(put.message());
          cache_->AbandonBuild();
          if (!dropped) cache_ = nullptr;
        }
      }
      kept.emplace_back();
      if (kept_bytes + bytes <= options_.memory_bytes) {
        kept.back().shard = std::move(shard);
        kept_bytes += bytes;
        if (why.empty() || !dropped) return absl::OkStatus();
      } else {
        dropped = true;
        if (why.empty()) return absl::OkStatus();
      }
      return absl::ResourceExhaustedError(absl::StrCat(sources_[0].name, ": the data need more than the ",
                                                       options_.memory_bytes,
                                                       " bytes of memory they may take, and can't be cached: ", why));
    };
    ShardCutter cutter(cache_ != nullptr ? cache_->id() : 0, options_.shard_rows, emit);
    DESCENT_RETURN_IF_ERROR(ParseSource(spec_, sources_, options_, &cutter, &manifest_.files));
    manifest_.shape = cutter.shape();
    manifest_.columns = std::move(*cutter.columns());
    for (size_t i = 0; i < prints_.size(); ++i) {
      if (prints_[i] != FileFingerprint{manifest_.files[i].bytes, manifest_.files[i].crc32c}) {
        return absl::DataLossError(absl::StrCat(sources_[i].name, ": the file changed while it was read"));
      }
    }
    SetBegins();
    if (cache_ != nullptr) {
      if (absl::Status commit = cache_->Commit(manifest_); !commit.ok()) {
        why = std::string(commit.message());
        cache_->AbandonBuild();
        cache_ = nullptr;
        if (dropped) return absl::ResourceExhaustedError(absl::StrCat(sources_[0].name, ": can't be cached: ", why));
      }
    }
    MutexLock lock(&mu_);
    resident_ = std::move(kept);
    resident_bytes_ = kept_bytes;
    if (!why.empty() && !options_.cache_dir.empty()) {
      notes_.push_back(absl::StrCat(sources_[0].name, ": kept in memory alone, because it can't be cached: ", why));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::shared_ptr<const Shard>> ShardAt(uint32_t index) const ABSL_LOCKS_EXCLUDED(load_mu_, mu_) {
    if (auto shard = ResidentAt(index)) return shard;
    MutexLock loading(&load_mu_);
    if (auto shard = ResidentAt(index)) return shard;
    absl::StatusOr<std::shared_ptr<const Shard>> shard = LoadChecked(index);
    if (!shard.ok()) shard = MakeAgain(index, shard.status());
    if (!shard.ok()) return shard;
    MutexLock lock(&mu_);
    // The least recently used ones make room; batches in work keep what they hold.
    const uint64_t bytes = (*shard)->bytes().size();
    while (resident_bytes_ > 0 && resident_bytes_ + bytes > options_.memory_bytes) {
      Resident* oldest = nullptr;
      for (Resident& resident : resident_) {
        if (resident.shard != nullptr && (oldest == nullptr || resident.used < oldest->used)) oldest = &resident;
      }
      resident_bytes_ -= oldest->shard->bytes().size();
      oldest->shard = nullptr;
    }
    resident_[index] = {*shard, ++uses_};
    resident_bytes_ += bytes;
    return shard;
  }

  std::shared_ptr<const Shard> ResidentAt(uint32_t index) const ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(&mu_);
    resident_[index].used = ++uses_;
    return resident_[index].shard;
  }

  absl::StatusOr<std::shared_ptr<const Shard>> LoadChecked(uint32_t index) const {
    DESCENT_ASSIGN_OR_RETURN(auto shard, cache_->ReadShard(index));
    if (shard->crc32c() != manifest_.shards[index].crc32c) {
      return absl::DataLossError(absl::StrCat(cache_->ShardPath(index), ": not the shard its manifest lists"));
    }
    return shard;
  }

  absl::StatusOr<std::shared_ptr<const Shard>> MakeAgain(uint32_t index, const absl::Status& damage) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(load_mu_) ABSL_LOCKS_EXCLUDED(mu_) {
    DESCENT_ASSIGN_OR_RETURN(auto lock, cache_->LockBuild());
    if (auto shard = LoadChecked(index); shard.ok()) return shard;  // another process was faster
    std::shared_ptr<const Shard> made;
    auto emit = [&](uint32_t at, std::shared_ptr<const Shard> shard) {
      lock->Progress();
      if (at != index) return absl::OkStatus();
      made = std::move(shard);
      return absl::CancelledError("");  // the rest is not needed
    };
    ShardCutter cutter(cache_->id(), options_.shard_rows, emit);
    std::vector<DataFileInfo> infos;
    const absl::Status parsed = ParseSource(spec_, sources_, options_, &cutter, &infos);
    if (made == nullptr || made->crc32c() != manifest_.shards[index].crc32c) {
      return absl::DataLossError(
          absl::StrCat(damage.message(), "; it can't be made again: ",
                       parsed.ok() || made != nullptr ? "the data files have changed" : std::string(parsed.message())));
    }
    const absl::Status replaced = cache_->ReplaceShard(index, *made);
    MutexLock notes(&mu_);
    notes_.push_back(absl::StrCat(damage.message(), "; made again from ",
                                  sources_.size() == 1 ? sources_[0].name : absl::StrCat(sources_.size(), " files"),
                                  replaced.ok() ? "" : absl::StrCat(", but not written: ", replaced.message())));
    return made;
  }

  const v1::Dataset spec_;
  DatasetOptions options_;
  std::vector<SourceFile> sources_;
  std::vector<FileFingerprint> prints_;
  std::unique_ptr<DatasetCache> cache_;  // null: all shards are in memory
  std::unique_ptr<FileLock> build_lock_;
  DatasetManifest manifest_;
  std::vector<uint64_t> begin_;

  mutable Mutex load_mu_;  // one shard is read at a time; before mu_
  mutable Mutex mu_;
  mutable std::vector<Resident> resident_ ABSL_GUARDED_BY(mu_);
  mutable uint64_t resident_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  mutable uint64_t uses_ ABSL_GUARDED_BY(mu_) = 0;
  mutable std::vector<std::string> notes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> Dataset::Open(const v1::Dataset& spec, const DatasetOptions& options) {
  auto dataset = std::make_unique<DatasetImpl>(spec, options);
  DESCENT_RETURN_IF_ERROR(dataset->Open());
  return dataset;
}

}  // namespace descent

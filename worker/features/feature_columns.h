// The columns of a data set and what a job's features say of each: numbers, categories or hashes, which become their
// logarithm, which are scaled. And the steps that nothing is fitted for: LIBSVM indices are hashed into buckets, then
// logarithms are taken. Statistics are of what these steps leave.
//
// Immutable, thread-safe.
#ifndef DESCENT_WORKER_FEATURES_FEATURE_COLUMNS_H_
#define DESCENT_WORKER_FEATURES_FEATURE_COLUMNS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "descent/v1/job.pb.h"
#include "worker/data/batch.h"
#include "worker/data/dataset.h"

namespace descent {

constexpr uint32_t kMostCategories = 1 << 20;  // of one column, in any data

// How a CSV file of training data is to be read for these features.
CsvColumns CsvColumnsOf(const v1::Features& features);

// sign(x) log(1 + |x|), computed in double without the system's library.
float SignedLog(float x);

class FeatureColumns {
 public:
  // `format` is what `data` were opened with. INVALID_ARGUMENT names a field whose column the data don't have.
  static absl::StatusOr<FeatureColumns> Create(const v1::Features& features, const v1::Dataset& format,
                                               const Dataset& data);

  uint64_t size() const { return size_; }  // of the columns that statistics are of; 0: any keys
  bool sparse() const { return sparse_; }
  bool named() const { return named_; }  // by a header
  bool number(uint64_t column) const { return kinds_.empty() || kinds_[column].kind == DataColumn::Kind::kNumber; }
  bool logged(uint64_t column) const { return log_all_ || (!logged_.empty() && logged_[column]); }
  bool scaled(uint64_t column) const { return number(column) && (unscaled_.empty() || !unscaled_[column]); }
  std::string Name(uint64_t column) const;
  uint64_t first() const { return first_; }  // the number of column 0 as the file counts, where it has no header
  // Of CSV: one for each column.
  const std::vector<DataColumn>& kinds() const { return kinds_; }

  // A batch of the data, in place.
  void Prepare(Batch* batch) const;

 private:
  absl::Status Mark(const char* field, const google::protobuf::RepeatedPtrField<std::string>& names,
                    std::vector<bool>* marks) const;
  absl::StatusOr<uint64_t> Find(const char* field, const std::string& name) const;
  void Hash(Batch* batch) const;

  uint64_t size_ = 0;
  uint64_t first_ = 0;  // the number of column 0 as the file counts
  bool sparse_ = false, named_ = false;
  uint32_t buckets_ = 0;  // of indices
  std::vector<DataColumn> kinds_;
  bool log_all_ = false;
  std::vector<bool> logged_, unscaled_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_FEATURES_FEATURE_COLUMNS_H_

#include "server/coordinator/admission.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/control/messages.h"
#include "common/wire/frame.h"
#include "google/protobuf/util/message_differencer.h"

namespace descent {
namespace {

std::string DescribeFile(const v1::DataFile& file) {
  return absl::StrFormat("%d bytes, %d rows, CRC32C %08x", file.bytes(), file.rows(), file.crc32c());
}

bool SameNumerics(const v1::Numerics& a, const v1::Numerics& b) {
  return a.build() == b.build() && a.instruction_set() == b.instruction_set() && a.probe() == b.probe();
}

// A client that says nothing of epochs takes the data as they are.
uint64_t EpochRows(const v1::RegisterWorkerRequest& request) {
  return request.epoch_rows() > 0 ? request.epoch_rows() : request.train_rows();
}

}  // namespace

std::vector<std::string> Admission::Server(const v1::RegisterServerRequest& request) {
  std::vector<std::string> mismatch;
  const std::string who = absl::StrCat("the server on host ", request.host());
  CheckCommon(who, request.protocol(), request.job_fingerprint(), request.numerics(), &mismatch);
  if (request.address().empty()) {
    mismatch.push_back(absl::StrCat(who, " gave no address; expected host:port, where workers reach it"));
  }
  if (mismatch.empty()) FixNumerics(who, request.numerics());
  return mismatch;
}

std::vector<std::string> Admission::Worker(const v1::RegisterWorkerRequest& request) {
  std::vector<std::string> mismatch;
  const std::string who = absl::StrCat("the worker on host ", request.host());
  CheckCommon(who, request.protocol(), request.job_fingerprint(), request.numerics(), &mismatch);
  absl::StatusOr<std::vector<TensorSpec>> specs = SpecsFromMessage(request.tensors());
  if (!specs.ok()) {
    mismatch.push_back(absl::StrCat(who, ": ", specs.status().message()));
  } else {
    CheckModel(who, *specs, &mismatch);
  }
  CheckData(who, request, &mismatch);
  if (!mismatch.empty()) return mismatch;
  FixNumerics(who, request.numerics());
  if (!model_host_.has_value()) {
    model_host_ = request.host();
    specs_ = *std::move(specs);
    files_.assign(request.files().begin(), request.files().end());
    train_rows_ = request.train_rows();
    epoch_rows_ = EpochRows(request);
    validation_rows_ = request.validation_rows();
    features_ = request.features();
  }
  return mismatch;
}

void Admission::CheckCommon(const std::string& who, uint32_t protocol, uint64_t fingerprint,
                            const v1::Numerics& numerics, std::vector<std::string>* mismatch) const {
  if (protocol != kProtocolVersion) {
    mismatch->push_back(absl::StrCat(who, " speaks protocol version ", protocol, "; expected ", kProtocolVersion));
  }
  if (fingerprint != rules_.job_fingerprint) {
    mismatch->push_back(absl::StrFormat("%s was started for another job: its fingerprint is %016x; expected %016x", who,
                                        fingerprint, rules_.job_fingerprint));
  }
  if (!rules_.same_numerics || !numerics_of_.has_value()) return;
  if (numerics.build() != numerics_.build()) {
    mismatch->push_back(absl::StrCat(who, " is another build: '", numerics.build(), "'; expected '", numerics_.build(),
                                     "', as ", *numerics_of_, " (consistency.allow_mixed_numerics permits a mixture)"));
  }
  if (numerics.instruction_set() != numerics_.instruction_set()) {
    mismatch->push_back(absl::StrCat(who, " is compiled for the instruction set ", numerics.instruction_set(),
                                     "; expected ", numerics_.instruction_set(), ", as ", *numerics_of_,
                                     " (consistency.allow_mixed_numerics permits a mixture)"));
  }
  if (numerics.probe() != numerics_.probe()) {
    mismatch->push_back(
        absl::StrFormat("%s computes other bits: its numerics probe is %016x; expected %016x, as %s "
                        "(consistency.allow_mixed_numerics permits a mixture)",
                        who, numerics.probe(), numerics_.probe(), *numerics_of_));
  }
}

void Admission::CheckModel(const std::string& who, const std::vector<TensorSpec>& specs,
                           std::vector<std::string>* mismatch) const {
  if (!model_host_.has_value()) {
    if (specs.empty()) {
      mismatch->push_back(absl::StrCat(who, " has a model without tensors; expected at least one"));
      return;
    }
    const absl::Status valid = ValidateSpecs(specs, rules_.max_bytes);
    if (!valid.ok()) mismatch->push_back(absl::StrCat(who, ": ", valid.message()));
    return;
  }
  if (specs.size() != specs_.size()) {
    mismatch->push_back(absl::StrCat(who, " has a model of ", specs.size(), " tensors; expected ", specs_.size(),
                                     ", as the first worker (host ", *model_host_, ")"));
    return;
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i] == specs_[i]) continue;
    mismatch->push_back(absl::StrCat(who, " has as tensor ", i, " ", Describe(specs[i]), "; expected ",
                                     Describe(specs_[i]), ", as the first worker (host ", *model_host_, ")"));
  }
}

void Admission::CheckData(const std::string& who, const v1::RegisterWorkerRequest& request,
                          std::vector<std::string>* mismatch) const {
  if (!model_host_.has_value()) {
    if (rules_.needs_data && request.train_rows() == 0) {
      mismatch->push_back(absl::StrCat(who, " found 0 rows of training data; expected at least 1"));
    }
    return;
  }
  if (request.files_size() != static_cast<int>(files_.size())) {
    mismatch->push_back(absl::StrCat(who, " has ", request.files_size(), " data files; expected ", files_.size(),
                                     ", as host ", *model_host_));
  }
  const size_t common = std::min<size_t>(files_.size(), request.files_size());
  for (size_t i = 0; i < common; ++i) {
    const v1::DataFile& came = request.files(static_cast<int>(i));
    const v1::DataFile& expected = files_[i];
    if (came.name() != expected.name()) {
      mismatch->push_back(absl::StrCat(who, " has as data file ", i, " ", came.name(), "; expected ", expected.name(),
                                       ", as host ", *model_host_));
    } else if (came.bytes() != expected.bytes() || came.rows() != expected.rows() ||
               came.crc32c() != expected.crc32c()) {
      mismatch->push_back(absl::StrCat(who, " has another data file ", came.name(), ": ", DescribeFile(came),
                                       "; expected ", DescribeFile(expected), ", as host ", *model_host_));
    }
  }
  if (request.train_rows() != train_rows_) {
    mismatch->push_back(absl::StrCat(who, " found ", request.train_rows(), " rows of training data; expected ",
                                     train_rows_, ", as host ", *model_host_));
  } else if (EpochRows(request) != epoch_rows_) {
    mismatch->push_back(absl::StrCat(who, " has epochs of ", EpochRows(request), " examples; expected ", epoch_rows_,
                                     ", as host ", *model_host_));
  }
  if (request.validation_rows() != validation_rows_) {
    mismatch->push_back(absl::StrCat(who, " found ", request.validation_rows(), " rows of validation data; expected ",
                                     validation_rows_, ", as host ", *model_host_));
  }
  if (!google::protobuf::util::MessageDifferencer::Equals(request.features(), features_)) {
    mismatch->push_back(absl::StrCat(who, " has fitted features otherwise than host ", *model_host_,
                                     "; expected the same numbers, from the same data"));
  }
}

void Admission::FixNumerics(const std::string& who, const v1::Numerics& numerics) {
  if (!numerics_of_.has_value()) {
    numerics_of_ = who;
    numerics_ = numerics;
  } else if (!SameNumerics(numerics, numerics_)) {
    mixed_ = true;
  }
}

}  // namespace descent

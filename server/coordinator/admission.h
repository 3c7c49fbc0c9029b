// Who may join a job: protocol, job, numerics, tensor specs and data, compared with what the job or the first
// registration fixed. Every mismatch is one sentence that names the host, what was expected and what came. Pure.
// Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_ADMISSION_H_
#define DESCENT_SERVER_COORDINATOR_ADMISSION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

class Admission {
 public:
  struct Rules {
    uint64_t job_fingerprint = 0;
    bool same_numerics = true;  // ROUND without allow_mixed_numerics
    uint64_t max_bytes = uint64_t{64} << 30;
    bool needs_data = true;
  };
  explicit Admission(const Rules& rules) : rules_(rules) {}

  // Empty: admitted, and what this registration is the first to say holds from now on. Otherwise nothing has changed.
  std::vector<std::string> Server(const v1::RegisterServerRequest& request);
  std::vector<std::string> Worker(const v1::RegisterWorkerRequest& request);

  // What the first worker said.
  bool has_model() const { return model_host_.has_value(); }
  const std::vector<TensorSpec>& specs() const { return specs_; }
  uint64_t train_rows() const { return train_rows_; }
  uint64_t epoch_rows() const { return epoch_rows_; }  // that an epoch takes
  uint64_t validation_rows() const { return validation_rows_; }
  const v1::FittedFeatures& features() const { return features_; }
  // Set once members with different numerics are in a job that allows it.
  bool mixed_numerics() const { return mixed_; }

 private:
  void CheckCommon(const std::string& who, uint32_t protocol, uint64_t fingerprint, const v1::Numerics& numerics,
                   std::vector<std::string>* mismatch) const;
  void CheckModel(const std::string& who, const std::vector<TensorSpec>& specs,
                  std::vector<std::string>* mismatch) const;
  void CheckData(const std::string& who, const v1::RegisterWorkerRequest& request,
                 std::vector<std::string>* mismatch) const;
  void FixNumerics(const std::string& who, const v1::Numerics& numerics);

  Rules rules_;
  std::optional<std::string> numerics_of_;
  v1::Numerics numerics_;
  bool mixed_ = false;
  std::optional<std::string> model_host_;
  std::vector<TensorSpec> specs_;
  std::vector<v1::DataFile> files_;
  uint64_t train_rows_ = 0, epoch_rows_ = 0, validation_rows_ = 0;
  v1::FittedFeatures features_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_ADMISSION_H_

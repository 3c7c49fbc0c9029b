#include "common/job/batch_norm_spec.h"

#include <utility>

namespace descent {
namespace {

constexpr double kDecay = 0.99;

// The net of the model's kind, and where it is; null: it has none.
std::pair<const v1::Mlp*, const char*> NetOf(const v1::ModelSpec& model) {
  switch (model.kind_case()) {
    case v1::ModelSpec::kMlp:
      return {&model.mlp(), "model.mlp"};
    case v1::ModelSpec::kAutoencoder:
      return {&model.autoencoder(), "model.autoencoder"};
    case v1::ModelSpec::kConvolution:
      return {&model.convolution().top(), "model.convolution.top"};
    case v1::ModelSpec::kWideDeep:
      return {&model.wide_deep().deep(), "model.wide_deep.deep"};
    default:
      return {nullptr, ""};
  }
}

}  // namespace

double StatisticDecayOf(const v1::ModelSpec& model) {
  const v1::Mlp* net = NetOf(model).first;
  return net != nullptr && net->has_batch_norm_decay() ? net->batch_norm_decay() : kDecay;
}

void ResolveBatchNorm(v1::Mlp* mlp) {
  if (mlp->batch_norm() && !mlp->has_batch_norm_decay()) mlp->set_batch_norm_decay(kDecay);
}

void CheckBatchNormFields(const std::string& path, const v1::Mlp& mlp, JobErrors* errors) {
  if (!mlp.batch_norm()) {
    if (mlp.has_batch_norm_decay()) errors->Error(path + ".batch_norm_decay", "is for batch_norm");
    return;
  }
  errors->Share(path + ".batch_norm_decay", mlp.batch_norm_decay());
  if (mlp.layer_norm()) errors->Error(path + ".batch_norm", "and layer_norm are both set: a layer has one of them");
}

void CheckBatchNorm(const v1::JobSpec& job, JobErrors* errors) {
  const auto [net, path] = NetOf(job.model());
  if (net == nullptr || !net->batch_norm()) return;
  const std::string field = std::string(path) + ".batch_norm";
  if (job.batch_size() == 1) errors->Error("batch_size", "1, but ", field, " needs examples to compare: at least 2");
  if (job.encoding() != v1::F32) {
    errors->Error("encoding", v1::Encoding_Name(job.encoding()), " does not go with ", field,
                  ", whose running statistics need the digits of F32");
  }
  if (job.has_local_training()) {
    errors->Error("local_training", "does not go with ", field, ": its steps would each have statistics of their own");
  }
}

}  // namespace descent

#include "worker/curvature/mean_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "worker/models/internal/aligned_buffer.h"

namespace descent {
namespace {

bool Trained(const TensorSpec& spec) { return spec.role == TensorRole::kTrainable; }

double Norm(absl::Span<const double> x) {
  double square = 0;
  for (double v : x) square += v * v;
  return std::sqrt(square);
}

}  // namespace

struct MeanLoss::Buffers {
  std::vector<internal::AlignedBuffer<double>> values, gradients;  // [tensor]
  std::vector<const double*> parameters;
  std::vector<double*> slopes;
};

MeanLoss::MeanLoss(Model<double>* model, const Dataset* data, std::vector<uint64_t> rows,
                   const MeanLossOptions& options)
    : model_(model), data_(data), rows_(std::move(rows)), options_(options), buffers_(std::make_unique<Buffers>()) {}

MeanLoss::~MeanLoss() = default;

std::vector<uint64_t> SpacedRows(uint64_t all, uint64_t wanted) {
  if (wanted == 0 || wanted > all) wanted = all;
  std::vector<uint64_t> rows;
  rows.reserve(wanted);
  // i all / wanted, without the product, which may not fit.
  for (uint64_t i = 0; i < wanted; ++i) rows.push_back(all / wanted * i + all % wanted * i / wanted);
  return rows;
}

absl::StatusOr<std::unique_ptr<MeanLoss>> MeanLoss::Create(Model<double>* model, const Dataset* data,
                                                           std::vector<uint64_t> rows,
                                                           const std::vector<absl::Span<const float>>& parameters,
                                                           const MeanLossOptions& options) {
  const std::vector<TensorSpec>& specs = model->tensors();
  DESCENT_CHECK(parameters.size() == specs.size());
  if (data != nullptr && rows.empty()) return absl::InvalidArgumentError("there are no rows to take the loss of");
  std::unique_ptr<MeanLoss> out(new MeanLoss(model, data, std::move(rows), options));
  Buffers& buffers = *out->buffers_;
  for (size_t t = 0; t < specs.size(); ++t) {
    const TensorSpec& spec = specs[t];
    if (spec.sparse) {
      return absl::InvalidArgumentError(absl::StrCat("table '", spec.name,
                                                     "': its rows are made as they occur, so that there is no vector "
                                                     "of all parameters; take a model without sparse_table"));
    }
    if (spec.role == TensorRole::kStatistic) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", spec.name,
                                                     "': is a statistic of mini-batches, so that the loss is not one "
                                                     "of single examples"));
    }
    DESCENT_CHECK(parameters[t].size() == spec.elements());
    for (auto* buffer : {&buffers.values.emplace_back(), &buffers.gradients.emplace_back()}) {
      buffer->Resize(spec.elements());
    }
    std::copy(parameters[t].begin(), parameters[t].end(), buffers.values.back().data());
    if (Trained(spec)) out->start_.insert(out->start_.end(), parameters[t].begin(), parameters[t].end());
  }
  if (out->start_.empty()) return absl::InvalidArgumentError("no tensor of the model is trained");
  for (size_t t = 0; t < specs.size(); ++t) {
    buffers.parameters.push_back(buffers.values[t].data());
    buffers.slopes.push_back(buffers.gradients[t].data());
  }
  for (std::vector<double>* scratch : {&out->at_, &out->above_, &out->below_}) scratch->resize(out->size());
  return out;
}

absl::StatusOr<double> MeanLoss::Gradient(absl::Span<const double> x, absl::Span<double> gradient) {
  DESCENT_CHECK(x.size() == size() && gradient.size() == size());
  const std::vector<TensorSpec>& specs = model_->tensors();
  std::vector<internal::AlignedBuffer<double>>& values = buffers_->values;
  size_t begin = 0;
  for (size_t t = 0; t < specs.size(); ++t) {
    if (!Trained(specs[t])) continue;
    std::copy_n(x.data() + begin, values[t].size(), values[t].data());
    begin += values[t].size();
  }
  std::fill(gradient.begin(), gradient.end(), 0.0);
  double loss = 0, weight = 0;
  const auto add = [&] {
    const BatchResult result = model_->Gradient(batch_, buffers_->parameters, absl::MakeConstSpan(buffers_->slopes));
    loss += result.loss;
    weight += result.weight;
    size_t at = 0;
    for (size_t t = 0; t < specs.size(); ++t) {
      if (!Trained(specs[t])) continue;
      const internal::AlignedBuffer<double>& of_batch = buffers_->gradients[t];
      for (size_t i = 0; i < of_batch.size(); ++i) gradient[at + i] += of_batch[i];
      at += of_batch.size();
    }
  };
  if (data_ == nullptr) {
    batch_.rows = 1;
    add();
  } else {
    const absl::Span<const uint64_t> rows = rows_;
    for (size_t first = 0; first < rows.size(); first += options_.batch_rows) {
      DESCENT_RETURN_IF_ERROR(data_->Read(rows.subspan(first, options_.batch_rows), &batch_));
      add();
    }
  }
  if (!std::isfinite(loss) || !(weight > 0)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the mean loss is not finite: ", loss, " over ", weight, " rows"));
  }
  begin = 0;
  for (size_t t = 0; t < specs.size(); ++t) {
    if (!Trained(specs[t])) continue;
    const double l2 = specs[t].decay ? options_.l2 : 0;
    for (size_t i = begin; i < begin + values[t].size(); ++i) {
      gradient[i] = gradient[i] / weight + l2 * x[i];
      if (!std::isfinite(gradient[i])) {
        return absl::FailedPreconditionError(
            absl::StrCat("tensor '", specs[t].name, "', element ", i - begin, ": the gradient is ", gradient[i]));
      }
    }
    begin += values[t].size();
  }
  return loss / weight;
}

absl::Status MeanLoss::HessianProduct(absl::Span<const double> x, absl::Span<const double> v,
                                      absl::Span<double> product) {
  const double norm = Norm(v);
  if (norm == 0) {
    std::fill(product.begin(), product.end(), 0.0);
    return absl::OkStatus();
  }
  const double step = std::cbrt(std::numeric_limits<double>::epsilon()) * (1 + Norm(x));
  for (size_t i = 0; i < size(); ++i) at_[i] = x[i] + step / norm * v[i];
  DESCENT_RETURN_IF_ERROR(Gradient(at_, absl::MakeSpan(above_)).status());
  for (size_t i = 0; i < size(); ++i) at_[i] = x[i] - step / norm * v[i];
  DESCENT_RETURN_IF_ERROR(Gradient(at_, absl::MakeSpan(below_)).status());
  for (size_t i = 0; i < size(); ++i) product[i] = (above_[i] - below_[i]) * (norm / (2 * step));
  return absl::OkStatus();
}

}  // namespace descent

#include "worker/models/predictor.h"

#include <google/protobuf/text_format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/tensor/initial_value.h"
#include "descent/v1/job.pb.h"
#include "worker/metrics/metric_observer.h"
#include "worker/models/internal/aligned_buffer.h"

namespace descent {
namespace {

absl::StatusOr<v1::JobSpec> JobOf(const SavedModel& model) {
  v1::JobSpec job;
  if (!google::protobuf::TextFormat::ParseFromString(model.description().job_text, &job)) {
    return absl::InvalidArgumentError("model.json: the job in it can't be parsed");
  }
  return job;
}

void AppendNumber(float value, std::string* line) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  line->append(text, end.ptr);
}

// The saved numbers as a model wants them for a batch.
class Parameters {
 public:
  explicit Parameters(const SavedModel& saved) : saved_(saved) {
    const auto& specs = saved.description().specs;
    rows_.resize(specs.size());
    for (uint32_t i = 0; i < specs.size(); ++i) pointers_.push_back(saved.dense(TensorId(i)).data());
  }

  absl::Span<const float* const> For(const Batch& batch) {
    const ModelDescription& d = saved_.description();
    for (uint32_t i = 0; i < d.specs.size(); ++i) {
      if (!d.specs[i].sparse) continue;
      const size_t dim = d.specs[i].dim();
      rows_[i].Resize(batch.keys.size() * dim);
      for (size_t k = 0; k < batch.keys.size(); ++k) {
        float* to = rows_[i].data() + k * dim;
        if (const float* row = saved_.FindRow(TensorId(i), batch.keys[k])) {
          std::copy_n(row, dim, to);
        } else {
          InitialRow(d.seed, TensorId(i), d.specs[i].initializer, batch.keys[k], absl::MakeSpan(to, dim));
        }
      }
      pointers_[i] = rows_[i].data();
    }
    return pointers_;
  }

 private:
  const SavedModel& saved_;
  std::vector<const float*> pointers_;
  std::vector<internal::AlignedBuffer<float>> rows_;
};

// Of the `n` probabilities of an example's classes, or of class 1 alone.
size_t ClassOf(const float* y, size_t n, const v1::Evaluation& measured) {
  if (n <= 2 && measured.has_threshold()) return static_cast<double>(y[n - 1]) >= measured.threshold() ? 1 : 0;
  if (n == 1) return y[0] > 0.5f ? 1 : 0;
  return static_cast<size_t>(std::max_element(y, y + n) - y);
}

// One line for `n` outputs of an example.
void AppendLine(const float* y, size_t n, bool classifier, bool probabilities, const v1::Evaluation& measured,
                std::string* text) {
  if (classifier) absl::StrAppend(text, ClassOf(y, n, measured));
  for (size_t k = 0; !classifier && k < n; ++k) {
    if (k > 0) text->push_back(' ');
    AppendNumber(y[k], text);
  }
  if (classifier && probabilities && n == 1) {
    text->push_back(' ');
    AppendNumber(1.0f - y[0], text);
  }
  for (size_t k = 0; classifier && probabilities && k < n; ++k) {
    text->push_back(' ');
    AppendNumber(y[k], text);
  }
  text->push_back('\n');
}

}  // namespace

absl::Status SetDatasetOptions(const SavedModel& model, DatasetOptions* options) {
  DESCENT_ASSIGN_OR_RETURN(const v1::JobSpec job, JobOf(model));
  DESCENT_ASSIGN_OR_RETURN(const ModelNeeds needs, NeedsOf(job.model()));
  if (!needs.data) return absl::InvalidArgumentError("the model takes no data: there is nothing to predict");
  options->labels = needs.labels;
  options->classes = needs.classes;
  options->keys = needs.keys;
  options->geometry.slots = model.description().slots;
  return absl::OkStatus();
}

absl::Status Predict(const SavedModel& saved, const Dataset& data, std::ostream& out, const PredictOptions& options,
                     PredictSummary* summary) {
  const ModelDescription& d = saved.description();
  DESCENT_ASSIGN_OR_RETURN(const v1::JobSpec job, JobOf(saved));
  const v1::ModelSpec& spec = job.model();
  DESCENT_ASSIGN_OR_RETURN(const ModelNeeds needs, NeedsOf(spec));
  if (!needs.data) return absl::InvalidArgumentError("the model takes no data: there is nothing to predict");
  if (!needs.keys && data.features() != d.features) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", d.features, " features, the data have ", data.features()));
  }
  ModelInput input;
  input.features = d.features;
  input.sparse = data.sparse();
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<Model<float>> model,
                           MakeModel<float>(spec, input, options.custom != nullptr ? *options.custom : CustomModels()));
  if (model->tensors().size() != d.specs.size()) {
    return absl::InvalidArgumentError("model.json: its tensors are not those of its job's model");
  }
  for (size_t i = 0; i < d.specs.size(); ++i) {
    const TensorSpec& expected = model->tensors()[i];
    const TensorSpec& found = d.specs[i];
    if (expected.name != found.name || expected.sparse != found.sparse || expected.shape != found.shape) {
      return absl::InvalidArgumentError(absl::StrCat("model.json: tensor \"", found.name,
                                                     "\" is not that of its job's model, \"", expected.name,
                                                     "\", or has another shape"));
    }
  }
  *summary = PredictSummary();
  summary->classifier = model->classifier();
  Parameters parameters(saved);
  Batch batch;
  BatchResult total;
  std::vector<uint64_t> rows;
  std::vector<float> y;
  std::string text;
  const uint64_t step = std::max<uint32_t>(1, options.batch_size);
  const size_t n = model->outputs();
  v1::Evaluation measured = job.evaluation();
  if (d.threshold.has_value()) measured.set_threshold(*d.threshold);
  MetricObserver metrics(measured, PredictionOf(*model), data.rows());
  for (uint64_t begin = 0; begin < data.rows(); begin += step) {
    const uint64_t end = std::min(data.rows(), begin + step);
    rows.clear();
    for (uint64_t r = begin; r < end; ++r) rows.push_back(r);
    DESCENT_RETURN_IF_ERROR(data.Read(rows, &batch));
    const absl::Span<const float* const> values = parameters.For(batch);
    if (options.metrics) {
      const BatchResult result = model->Evaluate(batch, values);
      total.loss += result.loss;
      total.weight += result.weight;
      total.correct += result.correct;
    }
    model->Predict(batch, values, &y);
    if (options.metrics) metrics.Add(batch.label, y);
    text.clear();
    for (size_t r = 0; r < batch.rows; ++r) {
      AppendLine(y.data() + r * n, n, model->classifier(), options.probabilities, measured, &text);
    }
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    if (!out) return absl::UnavailableError("predictions can't be written: the output takes no more");
    summary->rows += batch.rows;
  }
  if (total.weight > 0) {
    summary->loss = total.loss / total.weight;
    summary->accuracy = total.correct / total.weight;
    summary->metrics = Finish(measured, metrics.Take());
    if (const double* accuracy = summary->metrics.Find("accuracy"); accuracy != nullptr) summary->accuracy = *accuracy;
  }
  return absl::OkStatus();
}

}  // namespace descent

#include "worker/models/model_factory.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/job/loss_spec.h"
#include "common/job/model_spec.h"
#include "descent/v1/job.pb.h"
#include "worker/models/internal/mlp_layers.h"
#include "worker/models/internal/models.h"

namespace descent {
namespace {

using internal::LossKind;
using internal::LossSpec;

constexpr uint64_t kMostTableDim = 65536;

// What is wrong with the spec itself, as job_validate would say it; defaults are filled in first.
absl::StatusOr<v1::ModelSpec> Checked(v1::ModelSpec spec) {
  ResolveModel(&spec);
  JobErrors errors;
  CheckModel(spec, &errors);
  DESCENT_RETURN_IF_ERROR(errors.status());
  return spec;
}

// What the model's scores are compared by; without class weights.
LossSpec LossSpecOf(const v1::ModelSpec& model) {
  const v1::Loss loss = LossOf(model);
  switch (loss.kind_case()) {
    case v1::Loss::kAbsolute:
      return {LossKind::kAbsolute, 0, 1, {}};
    case v1::Loss::kQuantile:
      return {LossKind::kQuantile, loss.quantile().tau(), 1, {}};
    case v1::Loss::kHuber:
      return {LossKind::kHuber, loss.huber().delta(), 1, {}};
    case v1::Loss::kEpsilonInsensitive:
      return {LossKind::kEpsilonInsensitive, loss.epsilon_insensitive().epsilon(), 1, {}};
    case v1::Loss::kPoisson:
      return {LossKind::kPoisson, 0, 1, {}};
    case v1::Loss::kLogistic:
      return {LossKind::kLogistic, loss.logistic().focal_gamma(), 1, {}};
    case v1::Loss::kHinge:
      return {LossKind::kHinge, 0, 1, {}};
    case v1::Loss::kSquaredHinge:
      return {LossKind::kSquaredHinge, 0, 1, {}};
    case v1::Loss::kSoftmax:
      return {LossKind::kSoftmax, loss.softmax().focal_gamma(), ClassesOf(model), {}};
    default:
      return {};
  }
}

LabelKind KindOf(LossLabel label) {
  switch (label) {
    case LossLabel::kNumber:
      return LabelKind::kNumber;
    case LossLabel::kCount:
      return LabelKind::kCount;
    case LossLabel::kBinary:
      return LabelKind::kBinary;
    case LossLabel::kClass:
      break;
  }
  return LabelKind::kClass;
}

absl::Status CheckInput(const char* kind, const ModelInput& input, bool table) {
  if (table) {
    if (input.sparse) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("model.", kind, ".sparse_table: needs sparse data (libsvm), the data are dense"));
  }
  if (input.features > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model.", kind, ": the number of features isn't known; set data.train.libsvm.features, or ", kind,
                   ".sparse_table where the kind has it"));
}

template <typename T>
absl::StatusOr<std::unique_ptr<Model<T>>> MakeCustom(const v1::Custom& spec, const ModelInput& input,
                                                     const CustomModels& custom) {
  if constexpr (std::is_same_v<T, float>) {
    auto found = custom.find(spec.name());
    if (found == custom.end()) {
      std::string known;
      for (const auto& [name, factory] : custom) absl::StrAppend(&known, known.empty() ? "" : ", ", name);
      return absl::InvalidArgumentError(absl::StrCat("model.custom.name: this program has no model \"", spec.name(),
                                                     "\"; registered: ", known.empty() ? "none" : known));
    }
    ModelInput with_options = input;
    with_options.options.insert(spec.options().begin(), spec.options().end());
    return found->second(with_options);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("model.custom.name: \"", spec.name(), "\" is a custom model, which exists in float only"));
  }
}

template <typename T>
using Made = absl::StatusOr<std::unique_ptr<Model<T>>>;

// Of any kind with fields sparse_table and no_bias.
template <typename T, typename Kind>
Made<T> MakeLinearKind(const char* name, const Kind& kind, LossSpec loss, const ModelInput& input) {
  DESCENT_RETURN_IF_ERROR(CheckInput(name, input, kind.sparse_table()));
  if (kind.sparse_table() && loss.outputs > kMostTableDim) {
    return absl::InvalidArgumentError(absl::StrCat("model.", name, ".classes: with sparse_table at most ",
                                                   kMostTableDim, " were expected, ", loss.outputs, " came"));
  }
  return internal::MakeLinear<T>(std::move(loss), input.features, kind.sparse_table(), !kind.no_bias());
}

template <typename T>
Made<T> MakeMlp(const char* name, const v1::Mlp& mlp, LossSpec loss, internal::Target target, const ModelInput& input) {
  DESCENT_RETURN_IF_ERROR(CheckInput(name, input, /*table=*/false));
  if (target == internal::Target::kInput) loss.outputs = input.features;
  internal::Sequence<T> layers;
  internal::AppendMlp(mlp, input.features, loss.outputs, &layers);
  return internal::MakeNetwork<T>(std::move(loss), input.features, std::move(layers), target, input.seed);
}

template <typename T>
Made<T> MakeConvolutionNet(const v1::Convolution& m, LossSpec loss, const ModelInput& input) {
  const uint64_t numbers = uint64_t{m.height()} * m.width() * m.channels();
  if (input.features != numbers) {
    return absl::InvalidArgumentError(absl::StrCat("model.convolution: height x width x channels is ", numbers,
                                                   ", but the data have ", input.features, " features"));
  }
  internal::Sequence<T> layers;
  internal::AppendConvolution(m, loss.outputs, &layers);
  return internal::MakeNetwork<T>(std::move(loss), input.features, std::move(layers), internal::Target::kLabel,
                                  input.seed);
}

template <typename T>
Made<T> MakeRecurrentNet(const v1::Recurrent& m, LossSpec loss, const ModelInput& input) {
  if (input.features == 0 || input.features % m.steps() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("model.recurrent.steps: ", m.steps(), " steps do not divide the ",
                                                   input.features, " features of the data"));
  }
  internal::Sequence<T> layers;
  layers.Add(internal::MakeRecurrent<T>("recurrent",
                                        m.cell() == v1::LSTM ? internal::CellKind::kLstm : internal::CellKind::kGru,
                                        m.steps(), input.features / m.steps(), m.units()));
  const double out = static_cast<double>(loss.outputs);
  layers.Add(internal::MakeFull<T>("output", m.units(), loss.outputs,
                                   {Initializer::Kind::kUniform, std::sqrt(6 / (m.units() + out))}));
  return internal::MakeNetwork<T>(std::move(loss), input.features, std::move(layers), internal::Target::kLabel,
                                  input.seed);
}

// INVALID_ARGUMENT for a name that no tensor has, listing those that are there, and for a statistic.
template <typename T>
absl::StatusOr<std::unique_ptr<Model<T>>> Freeze(std::unique_ptr<Model<T>> model,
                                                 const std::vector<std::string>& names) {
  if (names.empty()) return model;
  std::vector<size_t> frozen;
  for (const std::string& name : names) {
    size_t i = 0;
    std::string known;
    for (; i < model->tensors().size() && model->tensors()[i].name != name; ++i) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", model->tensors()[i].name);
    }
    if (i == model->tensors().size()) {
      return absl::InvalidArgumentError(absl::StrCat("frozen: the model has no tensor \"", name, "\"; it has ", known));
    }
    if (model->tensors()[i].role == TensorRole::kStatistic) {
      return absl::InvalidArgumentError(absl::StrCat("frozen: \"", name, "\" is a running statistic of the batches, ",
                                                     "which training counts and does not learn"));
    }
    frozen.push_back(i);
  }
  return internal::MakeFrozen(std::move(model), frozen);
}

template <typename T>
Made<T> MakeKind(const v1::ModelSpec& spec, const ModelInput& input, const CustomModels& custom) {
  LossSpec loss = LossSpecOf(spec);
  if (!internal::OfNumber(loss.kind)) loss.class_weights = input.class_weights;
  switch (spec.kind_case()) {
    case v1::ModelSpec::kLinear:
      return MakeLinearKind<T>("linear", spec.linear(), std::move(loss), input);
    case v1::ModelSpec::kLogistic:
      return MakeLinearKind<T>("logistic", spec.logistic(), std::move(loss), input);
    case v1::ModelSpec::kSoftmax:
      return MakeLinearKind<T>("softmax", spec.softmax(), std::move(loss), input);
    case v1::ModelSpec::kSvm:
      return MakeLinearKind<T>("svm", spec.svm(), std::move(loss), input);
    case v1::ModelSpec::kPoisson:
      return MakeLinearKind<T>("poisson", spec.poisson(), std::move(loss), input);
    case v1::ModelSpec::kFactorizationMachine: {
      const v1::FactorizationMachine& m = spec.factorization_machine();
      DESCENT_RETURN_IF_ERROR(CheckInput("factorization_machine", input, m.sparse_table()));
      return internal::MakeFactorizationMachine<T>(std::move(loss), input.features, m.dim(), m.deviation(),
                                                   m.sparse_table(), !m.no_bias());
    }
    case v1::ModelSpec::kMlp:
      return MakeMlp<T>("mlp", spec.mlp(), std::move(loss), internal::Target::kLabel, input);
    case v1::ModelSpec::kAutoencoder:
      return MakeMlp<T>("autoencoder", spec.autoencoder(), std::move(loss), internal::Target::kInput, input);
    case v1::ModelSpec::kConvolution:
      return MakeConvolutionNet<T>(spec.convolution(), std::move(loss), input);
    case v1::ModelSpec::kRecurrent:
      return MakeRecurrentNet<T>(spec.recurrent(), std::move(loss), input);
    case v1::ModelSpec::kWideDeep: {
      DESCENT_RETURN_IF_ERROR(CheckInput("wide_deep", input, /*table=*/true));
      const v1::WideDeep& m = spec.wide_deep();
      internal::Sequence<T> deep;
      internal::AppendMlp(m.deep(), m.embedding(), loss.outputs, &deep);
      return internal::MakeWideDeep<T>(std::move(loss), m.embedding(), std::move(deep), input.seed);
    }
    case v1::ModelSpec::kQuadratic:
      return internal::MakeQuadratic<T>(spec.quadratic().dim(), spec.quadratic().center(), spec.quadratic().start());
    case v1::ModelSpec::kCustom:
      return MakeCustom<T>(spec.custom(), input, custom);
    default:
      return absl::InternalError("model: not made");
  }
}

}  // namespace

absl::StatusOr<ModelNeeds> NeedsOf(const v1::ModelSpec& unresolved) {
  DESCENT_ASSIGN_OR_RETURN(const v1::ModelSpec spec, Checked(unresolved));
  ModelNeeds needs;
  needs.data = ReadsData(spec);
  needs.keys = HasTable(spec);
  needs.labels = KindOf(LabelOf(LossOf(spec)));
  if (needs.labels == LabelKind::kClass) needs.classes = ClassesOf(spec);
  return needs;
}

template <typename T>
absl::StatusOr<std::unique_ptr<Model<T>>> MakeModel(const v1::ModelSpec& unresolved, const ModelInput& input,
                                                    const CustomModels& custom) {
  DESCENT_ASSIGN_OR_RETURN(const v1::ModelSpec spec, Checked(unresolved));
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<Model<T>> model, MakeKind<T>(spec, input, custom));
  return Freeze(std::move(model), input.frozen);
}

template absl::StatusOr<std::unique_ptr<Model<float>>> MakeModel(const v1::ModelSpec&, const ModelInput&,
                                                                 const CustomModels&);
template absl::StatusOr<std::unique_ptr<Model<double>>> MakeModel(const v1::ModelSpec&, const ModelInput&,
                                                                  const CustomModels&);

}  // namespace descent

#include "worker/models/model_factory.h"

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

LossSpec LossOf(const v1::Loss& loss, size_t outputs = 1) {
  switch (loss.kind_case()) {
    case v1::Loss::kAbsolute:
      return {LossKind::kAbsolute, 0, outputs, {}};
    case v1::Loss::kQuantile:
      return {LossKind::kQuantile, loss.quantile().tau(), outputs, {}};
    case v1::Loss::kHuber:
      return {LossKind::kHuber, loss.huber().delta(), outputs, {}};
    case v1::Loss::kEpsilonInsensitive:
      return {LossKind::kEpsilonInsensitive, loss.epsilon_insensitive().epsilon(), outputs, {}};
    case v1::Loss::kPoisson:
      return {LossKind::kPoisson, 0, outputs, {}};
    case v1::Loss::kLogistic:
      return {LossKind::kLogistic, loss.logistic().focal_gamma(), outputs, {}};
    case v1::Loss::kHinge:
      return {LossKind::kHinge, 0, outputs, {}};
    case v1::Loss::kSquaredHinge:
      return {LossKind::kSquaredHinge, 0, outputs, {}};
    case v1::Loss::kSoftmax:
      return {LossKind::kSoftmax, loss.softmax().focal_gamma(), outputs, {}};
    default:
      return {LossKind::kSquared, 0, outputs, {}};
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

// What the makers of the kinds have in common.
template <typename T>
class Maker {
 public:
  using Made = absl::StatusOr<std::unique_ptr<Model<T>>>;

  explicit Maker(const ModelInput& input) : input_(input) {}

  // Of any kind with fields sparse_table and no_bias.
  template <typename Kind>
  Made Linear(const char* name, const Kind& kind, LossSpec loss) const {
    DESCENT_RETURN_IF_ERROR(CheckInput(name, input_, kind.sparse_table()));
    if (kind.sparse_table() && loss.outputs > kMostTableDim) {
      return absl::InvalidArgumentError(absl::StrCat("model.", name, ".classes: with sparse_table at most ",
                                                     kMostTableDim, " were expected, ", loss.outputs, " came"));
    }
    return internal::MakeLinear<T>(Weighted(std::move(loss)), input_.features, kind.sparse_table(), !kind.no_bias());
  }

  Made FactorizationMachine(const v1::FactorizationMachine& m) const {
    DESCENT_RETURN_IF_ERROR(CheckInput("factorization_machine", input_, m.sparse_table()));
    return internal::MakeFactorizationMachine<T>(Weighted(LossOf(m.loss())), input_.features, m.dim(), m.deviation(),
                                                 m.sparse_table(), !m.no_bias());
  }

  Made Mlp(const v1::Mlp& m) const {
    DESCENT_RETURN_IF_ERROR(CheckInput("mlp", input_, /*table=*/false));
    const size_t outputs = m.loss().has_softmax() ? m.classes() : 1;
    return Network(LossOf(m.loss(), outputs), Layers(m, outputs), internal::Target::kLabel);
  }

  Made Convolution(const v1::Convolution& m) const {
    const uint64_t numbers = uint64_t{m.height()} * m.width() * m.channels();
    if (input_.features != numbers) {
      return absl::InvalidArgumentError(absl::StrCat("model.convolution: height x width x channels is ", numbers,
                                                     ", but the data have ", input_.features, " features"));
    }
    internal::Sequence<T> layers;
    const size_t outputs = m.top().loss().has_softmax() ? m.top().classes() : 1;
    internal::AppendConvolution(m, outputs, &layers);
    return Network(LossOf(m.top().loss(), outputs), std::move(layers), internal::Target::kLabel);
  }

  Made Autoencoder(const v1::Mlp& m) const {
    DESCENT_RETURN_IF_ERROR(CheckInput("autoencoder", input_, /*table=*/false));
    return Network(LossOf(m.loss(), input_.features), Layers(m, input_.features), internal::Target::kInput);
  }

 private:
  internal::Sequence<T> Layers(const v1::Mlp& m, size_t outputs) const {
    internal::Sequence<T> layers;
    internal::AppendMlp(m, input_.features, outputs, &layers);
    return layers;
  }

  Made Network(LossSpec loss, internal::Sequence<T> layers, internal::Target target) const {
    return internal::MakeNetwork<T>(Weighted(std::move(loss)), input_.features, std::move(layers), target, input_.seed);
  }

  LossSpec Weighted(LossSpec loss) const {
    if (!internal::OfNumber(loss.kind)) loss.class_weights = input_.class_weights;
    return loss;
  }

  const ModelInput& input_;
};

}  // namespace

absl::StatusOr<ModelNeeds> NeedsOf(const v1::ModelSpec& unresolved) {
  DESCENT_ASSIGN_OR_RETURN(const v1::ModelSpec spec, Checked(unresolved));
  ModelNeeds needs;
  needs.data = ReadsData(spec);
  needs.keys = HasTable(spec);
  needs.classes = ClassesOf(spec);
  switch (spec.kind_case()) {
    case v1::ModelSpec::kLogistic:
    case v1::ModelSpec::kSvm:
      needs.labels = LabelKind::kBinary;
      break;
    case v1::ModelSpec::kSoftmax:
      needs.labels = LabelKind::kClass;
      break;
    case v1::ModelSpec::kPoisson:
      needs.labels = LabelKind::kCount;
      break;
    case v1::ModelSpec::kFactorizationMachine:
      needs.labels = KindOf(LabelOf(spec.factorization_machine().loss()));
      break;
    case v1::ModelSpec::kMlp:
      needs.labels = KindOf(LabelOf(spec.mlp().loss()));
      break;
    case v1::ModelSpec::kConvolution:
      needs.labels = KindOf(LabelOf(spec.convolution().top().loss()));
      break;
    default:
      break;
  }
  if (needs.labels == LabelKind::kBinary) needs.classes = 0;
  return needs;
}

template <typename T>
absl::StatusOr<std::unique_ptr<Model<T>>> MakeModel(const v1::ModelSpec& unresolved, const ModelInput& input,
                                                    const CustomModels& custom) {
  DESCENT_ASSIGN_OR_RETURN(const v1::ModelSpec spec, Checked(unresolved));
  const Maker<T> maker(input);
  switch (spec.kind_case()) {
    case v1::ModelSpec::kLinear:
      return maker.Linear("linear", spec.linear(), LossOf(spec.linear().loss()));
    case v1::ModelSpec::kLogistic:
      return maker.Linear("logistic", spec.logistic(), {LossKind::kLogistic, spec.logistic().focal_gamma(), 1, {}});
    case v1::ModelSpec::kSoftmax:
      return maker.Linear("softmax", spec.softmax(),
                          {LossKind::kSoftmax, spec.softmax().focal_gamma(), spec.softmax().classes(), {}});
    case v1::ModelSpec::kSvm:
      return maker.Linear("svm", spec.svm(),
                          {spec.svm().squared_hinge() ? LossKind::kSquaredHinge : LossKind::kHinge, 0, 1, {}});
    case v1::ModelSpec::kPoisson:
      return maker.Linear("poisson", spec.poisson(), {LossKind::kPoisson, 0, 1, {}});
    case v1::ModelSpec::kFactorizationMachine:
      return maker.FactorizationMachine(spec.factorization_machine());
    case v1::ModelSpec::kMlp:
      return maker.Mlp(spec.mlp());
    case v1::ModelSpec::kConvolution:
      return maker.Convolution(spec.convolution());
    case v1::ModelSpec::kAutoencoder:
      return maker.Autoencoder(spec.autoencoder());
    case v1::ModelSpec::kQuadratic:
      return internal::MakeQuadratic<T>(spec.quadratic().dim(), spec.quadratic().center(), spec.quadratic().start());
    case v1::ModelSpec::kCustom:
      return MakeCustom<T>(spec.custom(), input, custom);
    default:
      return absl::InternalError("model: not made");
  }
}

template absl::StatusOr<std::unique_ptr<Model<float>>> MakeModel(const v1::ModelSpec&, const ModelInput&,
                                                                 const CustomModels&);
template absl::StatusOr<std::unique_ptr<Model<double>>> MakeModel(const v1::ModelSpec&, const ModelInput&,
                                                                  const CustomModels&);

}  // namespace descent

#include "worker/models/model_factory.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "descent/v1/job.pb.h"
#include "worker/models/internal/models.h"

namespace descent {
namespace {

// Widths a layer or a class count may have: what fits a 32-bit index with room for products.
constexpr uint64_t kMostOutputs = uint64_t{1} << 24;
constexpr uint64_t kMostTableDim = 65536;

absl::Status CheckClasses(const char* field, uint64_t classes) {
  if (classes >= 2 && classes <= kMostOutputs) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": a number from 2 to ", kMostOutputs, " was expected, ", classes, " came"));
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

}  // namespace

absl::StatusOr<ModelNeeds> NeedsOf(const v1::ModelSpec& spec) {
  ModelNeeds needs;
  switch (spec.kind_case()) {
    case v1::ModelSpec::kLinear:
      needs.keys = spec.linear().sparse_table();
      return needs;
    case v1::ModelSpec::kLogistic:
      needs.labels = LabelKind::kBinary;
      needs.keys = spec.logistic().sparse_table();
      return needs;
    case v1::ModelSpec::kSoftmax:
      DESCENT_RETURN_IF_ERROR(CheckClasses("model.softmax.classes", spec.softmax().classes()));
      needs.labels = LabelKind::kClass;
      needs.classes = spec.softmax().classes();
      needs.keys = spec.softmax().sparse_table();
      return needs;
    case v1::ModelSpec::kMlp:
      DESCENT_RETURN_IF_ERROR(CheckClasses("model.mlp.classes", spec.mlp().classes()));
      needs.labels = LabelKind::kClass;
      needs.classes = spec.mlp().classes();
      return needs;
    case v1::ModelSpec::kQuadratic:
      needs.data = false;
      return needs;
    case v1::ModelSpec::kCustom:
      needs.data = !spec.custom().no_data();
      return needs;
    default:
      break;
  }
  return absl::InvalidArgumentError(
      "model: one of linear, logistic, softmax, mlp, quadratic, custom was expected, none is set");
}

template <typename T>
absl::StatusOr<std::unique_ptr<Model<T>>> MakeModel(const v1::ModelSpec& spec, const ModelInput& input,
                                                    const CustomModels& custom) {
  using internal::LinearKind;
  DESCENT_RETURN_IF_ERROR(NeedsOf(spec).status());
  switch (spec.kind_case()) {
    case v1::ModelSpec::kLinear: {
      const v1::Linear& m = spec.linear();
      DESCENT_RETURN_IF_ERROR(CheckInput("linear", input, m.sparse_table()));
      return internal::MakeLinear<T>(LinearKind::kSquared, input.features, 1, m.sparse_table(), !m.no_bias());
    }
    case v1::ModelSpec::kLogistic: {
      const v1::Logistic& m = spec.logistic();
      DESCENT_RETURN_IF_ERROR(CheckInput("logistic", input, m.sparse_table()));
      return internal::MakeLinear<T>(LinearKind::kLogistic, input.features, 1, m.sparse_table(), !m.no_bias());
    }
    case v1::ModelSpec::kSoftmax: {
      const v1::Softmax& m = spec.softmax();
      DESCENT_RETURN_IF_ERROR(CheckInput("softmax", input, m.sparse_table()));
      if (m.sparse_table() && m.classes() > kMostTableDim) {
        return absl::InvalidArgumentError(absl::StrCat("model.softmax.classes: with sparse_table at most ",
                                                       kMostTableDim, " were expected, ", m.classes(), " came"));
      }
      return internal::MakeLinear<T>(LinearKind::kSoftmax, input.features, m.classes(), m.sparse_table(), !m.no_bias());
    }
    case v1::ModelSpec::kMlp: {
      const v1::Mlp& m = spec.mlp();
      DESCENT_RETURN_IF_ERROR(CheckInput("mlp", input, /*table=*/false));
      std::vector<uint64_t> widths = {input.features};
      for (int i = 0; i < m.hidden_size(); ++i) {
        if (m.hidden(i) == 0 || m.hidden(i) > kMostOutputs) {
          return absl::InvalidArgumentError(absl::StrCat("model.mlp.hidden[", i, "]: a number from 1 to ", kMostOutputs,
                                                         " was expected, ", m.hidden(i), " came"));
        }
        widths.push_back(m.hidden(i));
      }
      widths.push_back(m.classes());
      internal::ActivationKind activation;
      switch (m.activation()) {
        case v1::RELU:
          activation = internal::ActivationKind::kRelu;
          break;
        case v1::TANH:
          activation = internal::ActivationKind::kTanh;
          break;
        case v1::SIGMOID:
          activation = internal::ActivationKind::kSigmoid;
          break;
        default:
          return absl::InvalidArgumentError(
              absl::StrCat("model.mlp.activation: RELU, TANH or SIGMOID was expected, ", m.activation(), " came"));
      }
      bool he = m.activation() == v1::RELU;
      if (m.initialization() == v1::HE) he = true;
      if (m.initialization() == v1::XAVIER) he = false;
      return internal::MakeMlp<T>(std::move(widths), activation, he);
    }
    case v1::ModelSpec::kQuadratic: {
      const v1::Quadratic& m = spec.quadratic();
      return internal::MakeQuadratic<T>(m.dim() == 0 ? 1 : m.dim(), m.center(), m.start());
    }
    case v1::ModelSpec::kCustom:
      return MakeCustom<T>(spec.custom(), input, custom);
    default:
      break;
  }
  return absl::InternalError("model: not made");
}

template absl::StatusOr<std::unique_ptr<Model<float>>> MakeModel(const v1::ModelSpec&, const ModelInput&,
                                                                 const CustomModels&);
template absl::StatusOr<std::unique_ptr<Model<double>>> MakeModel(const v1::ModelSpec&, const ModelInput&,
                                                                  const CustomModels&);

}  // namespace descent

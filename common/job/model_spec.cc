#include "common/job/model_spec.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/job/batch_norm_spec.h"
#include "common/job/convolution_spec.h"
#include "common/job/loss_spec.h"

namespace descent {
namespace {

// Widths that a layer may have: what fits a 32-bit index with room for products.
constexpr uint64_t kMostWidth = uint64_t{1} << 24;

void ResolveMlp(v1::Loss::KindCase loss, v1::Mlp* mlp) {
  ResolveLoss(loss, mlp->mutable_loss());
  const v1::Activation activation = mlp->activation();
  if (mlp->initialization() == v1::DEFAULT_INITIALIZATION) {
    const bool rectifier =
        activation == v1::RELU || activation == v1::LEAKY_RELU || activation == v1::ELU || activation == v1::GELU;
    mlp->set_initialization(rectifier ? v1::HE : v1::XAVIER);
  }
  ResolveBatchNorm(mlp);
  if (mlp->initialization() == v1::ORTHOGONAL && mlp->initial_scale() == 0) mlp->set_initial_scale(1);
  if (mlp->has_activation_alpha()) return;
  if (activation == v1::LEAKY_RELU) mlp->set_activation_alpha(0.01);
  if (activation == v1::ELU) mlp->set_activation_alpha(1);
}

class ModelChecker {
 public:
  ModelChecker(const v1::ModelSpec& model, JobErrors* errors) : model_(model), errors_(errors) {}

  void Run() {
    switch (model_.kind_case()) {
      case v1::ModelSpec::KIND_NOT_SET:
        errors_->Error("model", "missing: one of linear, logistic, softmax, svm, poisson, factorization_machine, mlp, ",
                       "autoencoder, wide_deep, convolution, recurrent, quadratic, custom");
        break;
      case v1::ModelSpec::kLinear:
        CheckLoss("model.linear.loss", model_.linear().loss(), errors_);
        LossOfNumber("model.linear.loss", model_.linear().loss());
        break;
      case v1::ModelSpec::kLogistic:
        CheckFocal("model.logistic.focal_gamma", model_.logistic().focal_gamma(), errors_);
        break;
      case v1::ModelSpec::kSoftmax:
        ClassesGiven("model.softmax.classes", model_.softmax().classes());
        CheckFocal("model.softmax.focal_gamma", model_.softmax().focal_gamma(), errors_);
        break;
      case v1::ModelSpec::kFactorizationMachine:
        FactorizationMachine(model_.factorization_machine());
        break;
      case v1::ModelSpec::kMlp:
        Classifier("model.mlp", model_.mlp().loss(), model_.mlp().classes());
        if (model_.mlp().hidden_size() == 0) {
          errors_->Error("model.mlp.hidden", "no hidden layer",
                         model_.mlp().loss().has_softmax() ? "; without one it is softmax" : "");
        }
        Mlp("model.mlp", model_.mlp());
        break;
      case v1::ModelSpec::kAutoencoder:
        Autoencoder(model_.autoencoder());
        break;
      case v1::ModelSpec::kConvolution:
        Convolution(model_.convolution());
        break;
      case v1::ModelSpec::kRecurrent:
        Recurrent(model_.recurrent());
        break;
      case v1::ModelSpec::kWideDeep:
        WideDeep(model_.wide_deep());
        break;
      case v1::ModelSpec::kQuadratic:
        errors_->Range<uint64_t>("model.quadratic.dim", model_.quadratic().dim(), 1, uint64_t{1} << 40);
        break;
      case v1::ModelSpec::kCustom:
        if (model_.custom().name().empty()) {
          errors_->Error("model.custom.name", "missing: the name that the worker binary registers the model under");
        }
        break;
      default:
        break;
    }
  }

 private:
  void ClassesGiven(absl::string_view path, uint32_t classes) {
    if (classes == 0) {
      errors_->Error(path, "the number of classes is missing");
    } else {
      errors_->Range<uint64_t>(path, classes, 2, 65536);
    }
  }

  void LossOfNumber(const std::string& path, const v1::Loss& loss) {
    if (LabelOf(loss) == LossLabel::kNumber) return;
    errors_->Error(path, LossName(loss), " is not of a number; expected squared, absolute, quantile, huber or ",
                   "epsilon_insensitive (the kinds logistic, svm and poisson have losses of their own)");
  }

  // What a loss and a number of classes say together.
  void Classifier(const std::string& path, const v1::Loss& loss, uint32_t classes) {
    CheckLoss(path + ".loss", loss, errors_);
    if (loss.has_softmax()) {
      ClassesGiven(path + ".classes", classes);
    } else if (classes != 0) {
      errors_->Error(path + ".classes", classes, ", but loss ", LossName(loss),
                     LabelOf(loss) == LossLabel::kBinary ? " is of two classes: leave it out" : " is of a number");
    }
  }

  void FactorizationMachine(const v1::FactorizationMachine& machine) {
    const std::string path = "model.factorization_machine";
    if (machine.dim() == 0) {
      errors_->Error(path + ".dim", "missing: how many numbers a feature's vector has");
    } else {
      errors_->Range<uint64_t>(path + ".dim", machine.dim(), 1, 65536);
    }
    CheckLoss(path + ".loss", machine.loss(), errors_);
    if (machine.loss().has_softmax()) {
      errors_->Error(path + ".loss", "softmax is of many classes; the score is one number");
    }
    // Vectors that are all 0 have no gradient.
    errors_->PositiveFloat(path + ".deviation", machine.deviation());
  }

  void Autoencoder(const v1::Mlp& mlp) {
    const std::string path = "model.autoencoder";
    CheckLoss(path + ".loss", mlp.loss(), errors_);
    LossOfNumber(path + ".loss", mlp.loss());
    if (mlp.classes() != 0) errors_->Error(path + ".classes", mlp.classes(), ", but its target is its input");
    if (mlp.hidden_size() == 0) errors_->Error(path + ".hidden", "no hidden layer: expected a code at least");
    Mlp(path, mlp);
  }

  void Mlp(const std::string& path, const v1::Mlp& mlp) {
    errors_->Range<uint64_t>(path + ".hidden", mlp.hidden_size(), 0, 1000);
    bool equal_neighbours = false;
    for (int i = 0; i < mlp.hidden_size(); ++i) {
      errors_->Range<uint64_t>(absl::StrCat(path, ".hidden[", i, "]"), mlp.hidden(i), 1, kMostWidth);
      equal_neighbours |= i > 0 && mlp.hidden(i) == mlp.hidden(i - 1);
    }
    errors_->Share(path + ".dropout", mlp.dropout());
    errors_->Share(path + ".input_dropout", mlp.input_dropout());
    if (mlp.residual() && !equal_neighbours) {
      errors_->Error(path + ".residual", "no hidden layer is as wide as the one below it");
    }
    CheckBatchNormFields(path, mlp, errors_);
    Activation(path + ".activation_alpha", mlp);
    InitialScale(path + ".initial_scale", mlp);
  }

  void Convolution(const v1::Convolution& spec) {
    const std::string path = "model.convolution";
    for (const auto& [field, value] : {std::pair{".height", spec.height()}, std::pair{".width", spec.width()},
                                       std::pair{".channels", spec.channels()}}) {
      errors_->Range<uint64_t>(path + field, value, 1, 65536);
    }
    if (spec.layer_size() == 0) errors_->Error(path + ".layer", "missing: without one it is an mlp");
    const std::vector<ConvolutionStage> stages = StagesOf(spec, errors_);
    for (const ConvolutionStage& stage : stages) {
      if (stage.in.size() > kMostWidth || stage.convolved.size() > kMostWidth) {
        errors_->Error(path + ".layer", "an image of more than ", kMostWidth, " numbers");
      }
    }
    Classifier(path + ".top", spec.top().loss(), spec.top().classes());
    Mlp(path + ".top", spec.top());
  }

  void Recurrent(const v1::Recurrent& spec) {
    const std::string path = "model.recurrent";
    errors_->Range<uint64_t>(path + ".steps", spec.steps(), 1, 65536);
    errors_->Range<uint64_t>(path + ".units", spec.units(), 1, 65536);
    Classifier(path, spec.loss(), spec.classes());
  }

  void WideDeep(const v1::WideDeep& spec) {
    const std::string path = "model.wide_deep";
    errors_->Range<uint64_t>(path + ".embedding", spec.embedding(), 1, 65536);
    Classifier(path + ".deep", spec.deep().loss(), spec.deep().classes());
    if (spec.deep().hidden_size() == 0) errors_->Error(path + ".deep.hidden", "no hidden layer");
    Mlp(path + ".deep", spec.deep());
  }

  void Activation(const std::string& path, const v1::Mlp& mlp) {
    if (mlp.activation() == v1::LEAKY_RELU) {
      errors_->Share(path, mlp.activation_alpha());
    } else if (mlp.activation() == v1::ELU) {
      errors_->PositiveFloat(path, mlp.activation_alpha());
    } else if (mlp.has_activation_alpha()) {
      errors_->Error(path, "is for LEAKY_RELU and ELU");
    }
  }

  void InitialScale(const std::string& path, const v1::Mlp& mlp) {
    switch (mlp.initialization()) {
      case v1::CONSTANT:
        if (mlp.initial_scale() == 0) errors_->Error(path, "missing: the value of CONSTANT (for 0 there is ZEROS)");
        break;
      case v1::UNIFORM:
      case v1::NORMAL:
      case v1::ORTHOGONAL:
        errors_->PositiveFloat(path, mlp.initial_scale());
        break;
      default:
        if (mlp.initial_scale() != 0) errors_->Error(path, "is for CONSTANT, UNIFORM, NORMAL and ORTHOGONAL");
    }
  }

  const v1::ModelSpec& model_;
  JobErrors* const errors_;
};

}  // namespace

bool ReadsData(const v1::ModelSpec& model) {
  return !model.has_quadratic() && !(model.has_custom() && model.custom().no_data());
}

bool HasTable(const v1::ModelSpec& model) {
  return model.linear().sparse_table() || model.logistic().sparse_table() || model.softmax().sparse_table() ||
         model.svm().sparse_table() || model.poisson().sparse_table() || model.factorization_machine().sparse_table() ||
         model.has_wide_deep();
}

v1::Loss LossOf(const v1::ModelSpec& model) {
  v1::Loss loss;
  switch (model.kind_case()) {
    case v1::ModelSpec::kLinear:
      return model.linear().loss();
    case v1::ModelSpec::kLogistic:
      loss.mutable_logistic()->set_focal_gamma(model.logistic().focal_gamma());
      return loss;
    case v1::ModelSpec::kSoftmax:
      loss.mutable_softmax()->set_focal_gamma(model.softmax().focal_gamma());
      return loss;
    case v1::ModelSpec::kSvm:
      if (model.svm().squared_hinge()) {
        loss.mutable_squared_hinge();
      } else {
        loss.mutable_hinge();
      }
      return loss;
    case v1::ModelSpec::kPoisson:
      loss.mutable_poisson();
      return loss;
    case v1::ModelSpec::kFactorizationMachine:
      return model.factorization_machine().loss();
    case v1::ModelSpec::kMlp:
      return model.mlp().loss();
    case v1::ModelSpec::kAutoencoder:
      return model.autoencoder().loss();
    case v1::ModelSpec::kConvolution:
      return model.convolution().top().loss();
    case v1::ModelSpec::kRecurrent:
      return model.recurrent().loss();
    case v1::ModelSpec::kWideDeep:
      return model.wide_deep().deep().loss();
    default:
      return loss;
  }
}

uint32_t ClassesOf(const v1::ModelSpec& model) {
  switch (LabelOf(LossOf(model))) {
    case LossLabel::kBinary:
      return 2;
    case LossLabel::kClass:
      // One of them is there; the others' are 0.
      return std::max({model.softmax().classes(), model.mlp().classes(), model.convolution().top().classes(),
                       model.recurrent().classes(), model.wide_deep().deep().classes()});
    default:
      return 0;
  }
}

uint64_t FeaturesOf(const v1::ModelSpec& model, uint64_t first_rows) {
  if (model.has_recurrent()) return model.recurrent().steps() * first_rows;
  if (!model.has_convolution()) return first_rows;
  const v1::Convolution& images = model.convolution();
  return uint64_t{images.height()} * images.width() * images.channels();
}

void ResolveModel(v1::ModelSpec* model) {
  switch (model->kind_case()) {
    case v1::ModelSpec::kLinear:
      ResolveLoss(v1::Loss::kSquared, model->mutable_linear()->mutable_loss());
      break;
    case v1::ModelSpec::kFactorizationMachine: {
      v1::FactorizationMachine* machine = model->mutable_factorization_machine();
      ResolveLoss(v1::Loss::kLogistic, machine->mutable_loss());
      if (!machine->has_deviation()) machine->set_deviation(0.01);
      break;
    }
    case v1::ModelSpec::kMlp:
      ResolveMlp(v1::Loss::kSoftmax, model->mutable_mlp());
      break;
    case v1::ModelSpec::kAutoencoder:
      ResolveMlp(v1::Loss::kSquared, model->mutable_autoencoder());
      break;
    case v1::ModelSpec::kConvolution: {
      v1::Convolution* convolution = model->mutable_convolution();
      if (convolution->channels() == 0) convolution->set_channels(1);
      for (v1::ConvolutionLayer& layer : *convolution->mutable_layer()) {
        if (layer.stride() == 0) layer.set_stride(1);
        if (layer.pool() != v1::NO_POOL && layer.pool_size() == 0) layer.set_pool_size(2);
      }
      ResolveMlp(v1::Loss::kSoftmax, convolution->mutable_top());
      break;
    }
    case v1::ModelSpec::kRecurrent:
      ResolveLoss(v1::Loss::kSoftmax, model->mutable_recurrent()->mutable_loss());
      break;
    case v1::ModelSpec::kWideDeep:
      ResolveMlp(v1::Loss::kLogistic, model->mutable_wide_deep()->mutable_deep());
      break;
    case v1::ModelSpec::kQuadratic:
      if (model->quadratic().dim() == 0) model->mutable_quadratic()->set_dim(1);
      break;
    default:
      break;
  }
  if (model->max_bytes() == 0) model->set_max_bytes(uint64_t{64} << 30);
}

void CheckModel(const v1::ModelSpec& model, JobErrors* errors) { ModelChecker(model, errors).Run(); }

void CheckClassWeights(const v1::ClassWeights& weights, const v1::ModelSpec& model, JobErrors* errors) {
  const uint32_t classes = ClassesOf(model);
  if (classes == 0) {
    errors->Error("class_weights", "the model's labels are not classes");
  } else if (weights.balanced() && weights.weight_size() > 0) {
    errors->Error("class_weights", "both weight and balanced are set");
  } else if (!weights.balanced() && static_cast<uint32_t>(weights.weight_size()) != classes) {
    errors->Error("class_weights.weight", weights.weight_size(), " weights, but ", classes,
                  " classes; or set balanced");
  }
  for (int k = 0; k < weights.weight_size(); ++k) {
    errors->FloatFromZero(absl::StrCat("class_weights.weight[", k, "]"), weights.weight(k));
  }
}

}  // namespace descent

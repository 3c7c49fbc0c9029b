#include "common/job/loss_spec.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"

namespace descent {
namespace {

const google::protobuf::FieldDescriptor* KindField(v1::Loss::KindCase kind) {
  return v1::Loss::descriptor()->FindFieldByNumber(kind);
}

}  // namespace

LossLabel LabelOf(const v1::Loss& loss) {
  switch (loss.kind_case()) {
    case v1::Loss::kPoisson:
      return LossLabel::kCount;
    case v1::Loss::kLogistic:
    case v1::Loss::kHinge:
    case v1::Loss::kSquaredHinge:
      return LossLabel::kBinary;
    case v1::Loss::kSoftmax:
      return LossLabel::kClass;
    default:
      return LossLabel::kNumber;
  }
}

void ResolveLoss(v1::Loss::KindCase otherwise, v1::Loss* loss) {
  if (loss->kind_case() == v1::Loss::KIND_NOT_SET) loss->GetReflection()->MutableMessage(loss, KindField(otherwise));
  if (loss->has_huber() && !loss->huber().has_delta()) loss->mutable_huber()->set_delta(1);
  if (loss->has_epsilon_insensitive() && !loss->epsilon_insensitive().has_epsilon()) {
    loss->mutable_epsilon_insensitive()->set_epsilon(0.1);
  }
}

void CheckLoss(const std::string& path, const v1::Loss& loss, JobErrors* errors) {
  if (loss.has_quantile() && !(loss.quantile().tau() > 0 && loss.quantile().tau() < 1)) {
    errors->Error(path + ".quantile.tau", loss.quantile().tau(), " is not between 0 and 1");
  }
  if (loss.has_huber()) errors->PositiveFloat(path + ".huber.delta", loss.huber().delta());
  if (loss.has_epsilon_insensitive()) {
    errors->FloatFromZero(path + ".epsilon_insensitive.epsilon", loss.epsilon_insensitive().epsilon());
  }
  if (loss.has_logistic()) CheckFocal(path + ".logistic.focal_gamma", loss.logistic().focal_gamma(), errors);
  if (loss.has_softmax()) CheckFocal(path + ".softmax.focal_gamma", loss.softmax().focal_gamma(), errors);
}

void CheckFocal(absl::string_view path, double gamma, JobErrors* errors) { errors->Range<double>(path, gamma, 0, 100); }

std::string LossName(const v1::Loss& loss) {
  const google::protobuf::FieldDescriptor* field = KindField(loss.kind_case());
  return field == nullptr ? "" : std::string(field->name());
}

}  // namespace descent

#include "common/control/messages.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"

namespace descent {

v1::TensorSpec ToMessage(const TensorSpec& spec) {
  v1::TensorSpec message;
  message.set_name(spec.name);
  message.set_sparse(spec.sparse);
  for (uint64_t n : spec.shape) message.add_shape(n);
  switch (spec.role) {
    case TensorRole::kTrainable:
      message.set_role(v1::TRAINABLE);
      break;
    case TensorRole::kStatistic:
      message.set_role(v1::STATISTIC);
      break;
    case TensorRole::kFrozen:
      message.set_role(v1::FROZEN);
      break;
    case TensorRole::kAuxiliary:
      message.set_role(v1::AUXILIARY);
      break;
  }
  message.set_decay(spec.decay);
  v1::Initializer* initializer = message.mutable_initializer();
  switch (spec.initializer.kind) {
    case Initializer::Kind::kZero:
      initializer->set_kind(v1::Initializer::ZERO);
      break;
    case Initializer::Kind::kConstant:
      initializer->set_kind(v1::Initializer::CONSTANT);
      break;
    case Initializer::Kind::kUniform:
      initializer->set_kind(v1::Initializer::UNIFORM);
      break;
    case Initializer::Kind::kNormal:
      initializer->set_kind(v1::Initializer::NORMAL);
      break;
    case Initializer::Kind::kOrthogonal:
      initializer->set_kind(v1::Initializer::ORTHOGONAL);
      break;
  }
  initializer->set_scale(spec.initializer.scale);
  return message;
}

absl::StatusOr<TensorSpec> FromMessage(const v1::TensorSpec& message) {
  TensorSpec spec;
  spec.name = message.name();
  spec.sparse = message.sparse();
  spec.shape.assign(message.shape().begin(), message.shape().end());
  switch (message.role()) {
    case v1::TRAINABLE:
      spec.role = TensorRole::kTrainable;
      break;
    case v1::STATISTIC:
      spec.role = TensorRole::kStatistic;
      break;
    case v1::FROZEN:
      spec.role = TensorRole::kFrozen;
      break;
    case v1::AUXILIARY:
      spec.role = TensorRole::kAuxiliary;
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat("tensor '", spec.name, "' has the unknown role ",
                                                     static_cast<int>(message.role()), "; expected 0 to 3"));
  }
  spec.decay = message.decay();
  switch (message.initializer().kind()) {
    case v1::Initializer::ZERO:
      spec.initializer.kind = Initializer::Kind::kZero;
      break;
    case v1::Initializer::CONSTANT:
      spec.initializer.kind = Initializer::Kind::kConstant;
      break;
    case v1::Initializer::UNIFORM:
      spec.initializer.kind = Initializer::Kind::kUniform;
      break;
    case v1::Initializer::NORMAL:
      spec.initializer.kind = Initializer::Kind::kNormal;
      break;
    case v1::Initializer::ORTHOGONAL:
      spec.initializer.kind = Initializer::Kind::kOrthogonal;
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat("tensor '", spec.name, "' has the unknown initializer ",
                                                     static_cast<int>(message.initializer().kind()),
                                                     "; expected 0 to 3"));
  }
  spec.initializer.scale = message.initializer().scale();
  return spec;
}

absl::StatusOr<std::vector<TensorSpec>> SpecsFromMessage(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& messages) {
  std::vector<TensorSpec> specs;
  specs.reserve(messages.size());
  for (const v1::TensorSpec& message : messages) {
    DESCENT_ASSIGN_OR_RETURN(TensorSpec spec, FromMessage(message));
    specs.push_back(std::move(spec));
  }
  return specs;
}

v1::PartitionMap ToMessage(const PartitionMap& map) {
  v1::PartitionMap message;
  message.set_epoch(map.epoch);
  for (const std::vector<ServerId>& tensor : map.placement) {
    v1::TensorPlacement* placement = message.add_tensor();
    placement->mutable_server()->Reserve(static_cast<int>(tensor.size()));
    for (ServerId server : tensor) placement->add_server(server.value);
  }
  return message;
}

absl::StatusOr<PartitionMap> FromMessage(const v1::PartitionMap& message, const std::vector<TensorSpec>& specs,
                                         const Geometry& geometry) {
  PartitionMap map;
  map.epoch = message.epoch();
  map.servers = static_cast<uint32_t>(message.address_size());
  if (static_cast<size_t>(message.tensor_size()) != specs.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the partition map has ", message.tensor_size(),
                                                   " tensors; expected ", specs.size(), ", as the model has"));
  }
  map.placement.resize(specs.size());
  for (size_t t = 0; t < specs.size(); ++t) {
    const auto& servers = message.tensor(static_cast<int>(t)).server();
    const uint32_t blocks = geometry.blocks(specs[t]);
    if (static_cast<uint32_t>(servers.size()) != blocks) {
      return absl::InvalidArgumentError(absl::StrCat("the partition map has ", servers.size(), " blocks of tensor '",
                                                     specs[t].name, "'; expected ", blocks));
    }
    map.placement[t].reserve(blocks);
    for (uint32_t server : servers) {
      if (server >= map.servers) {
        return absl::InvalidArgumentError(absl::StrCat("the partition map puts a block of tensor '", specs[t].name,
                                                       "' on server ", server, "; there are ", map.servers));
      }
      map.placement[t].push_back(ServerId(server));
    }
  }
  return map;
}

v1::Lease ToMessage(Rank rank, Incarnation incarnation) {
  v1::Lease lease;
  lease.set_rank(rank.value);
  lease.set_generation(incarnation.generation.value);
  lease.set_number(incarnation.number);
  return lease;
}

v1::ScalarTotals ToMessage(const ScalarTotals& totals) {
  v1::ScalarTotals message;
  message.set_ready(true);
  message.set_clock(totals.clock.value);
  message.mutable_tensor_square()->Add(totals.square.begin(), totals.square.end());
  message.mutable_parameter_square()->Add(totals.parameter_square.begin(), totals.parameter_square.end());
  message.mutable_product()->Add(totals.products.begin(), totals.products.end());
  return message;
}

ScalarTotals FromMessage(const v1::ScalarTotals& message) {
  ScalarTotals totals;
  totals.clock = Clock(message.clock());
  totals.square.assign(message.tensor_square().begin(), message.tensor_square().end());
  totals.parameter_square.assign(message.parameter_square().begin(), message.parameter_square().end());
  totals.products.assign(message.product().begin(), message.product().end());
  return totals;
}

std::string Describe(const TensorSpec& spec) {
  static constexpr const char* kRoles[] = {"trainable", "statistic", "frozen", "auxiliary"};
  static constexpr const char* kKinds[] = {"zero", "constant", "uniform", "normal", "orthogonal"};
  std::string text = absl::StrCat("'", spec.name, "' ", spec.sparse ? "table of rows" : "float32", "[",
                                  absl::StrJoin(spec.shape, ", "), "] ", kRoles[static_cast<int>(spec.role)],
                                  spec.decay ? ", decayed, " : ", ", kKinds[static_cast<int>(spec.initializer.kind)]);
  if (spec.initializer.kind != Initializer::Kind::kZero) absl::StrAppend(&text, "(", spec.initializer.scale, ")");
  return text;
}

}  // namespace descent

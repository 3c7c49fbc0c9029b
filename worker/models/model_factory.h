// From the job's ModelSpec to a Model, and where a user's own models are registered.
#ifndef DESCENT_WORKER_MODELS_MODEL_FACTORY_H_
#define DESCENT_WORKER_MODELS_MODEL_FACTORY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/dataset.h"
#include "worker/models/model.h"

namespace descent::v1 {
class ModelSpec;
}

namespace descent {

// What a model may know of the data when it is made.
struct ModelInput {
  uint64_t features = 0;
  bool sparse = false;
  std::map<std::string, std::string> options;  // of model { custom { options { } } }
  std::vector<double> class_weights;           // what an example's loss is multiplied by; empty: all 1
  uint64_t seed = 0;                           // of the job: random masks are functions of it
  std::vector<std::string> frozen;             // names of tensors that stay as they begin
};

// Makes a user's model. INVALID_ARGUMENT for options it can't serve.
using CustomModelFactory = std::function<absl::StatusOr<std::unique_ptr<Model<float>>>(const ModelInput&)>;

// Models by the name in model { custom { name: ... } }. Built at start-up, then only read.
using CustomModels = std::map<std::string, CustomModelFactory>;

// What the job's model asks of the data.
struct ModelNeeds {
  bool data = true;
  LabelKind labels = LabelKind::kNumber;
  uint32_t classes = 0;
  bool keys = false;  // a sparse table
};
absl::StatusOr<ModelNeeds> NeedsOf(const v1::ModelSpec& spec);

// INVALID_ARGUMENT: what the model can't do with this input, or a custom name that is not registered (those that are
// get listed). T is float or double; custom models exist as float only.
template <typename T>
absl::StatusOr<std::unique_ptr<Model<T>>> MakeModel(const v1::ModelSpec& spec, const ModelInput& input,
                                                    const CustomModels& custom);

}  // namespace descent

#endif  // DESCENT_WORKER_MODELS_MODEL_FACTORY_H_

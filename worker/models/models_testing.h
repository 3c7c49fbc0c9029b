// Batches for the tests of the models.
#ifndef DESCENT_WORKER_MODELS_MODELS_TESTING_H_
#define DESCENT_WORKER_MODELS_MODELS_TESTING_H_

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "descent/v1/job.pb.h"
#include "worker/data/batch.h"
#include "worker/models/model_factory.h"

namespace descent {

enum class BatchForm { kDense, kSparse, kTable };

// Random features; labels 0 .. classes - 1, or normal numbers where classes is 0. kTable: keys are features in an order
// of their own.
inline Batch MakeBatch(BatchForm form, size_t rows, uint64_t features, uint32_t classes, uint64_t seed = 1) {
  const RandomStream stream(seed, Purpose::kTest, 1, 0);
  Batch batch;
  batch.rows = rows;
  batch.features = form == BatchForm::kTable ? 0 : features;
  batch.sparse = form != BatchForm::kDense;
  uint64_t draw = 0;
  if (form == BatchForm::kDense) {
    batch.dense.Resize(rows * features);
    for (size_t i = 0; i < rows * features; ++i) batch.dense[i] = static_cast<float>(stream.Normal(draw++));
  } else {
    batch.row_begin.push_back(0);
    for (size_t r = 0; r < rows; ++r) {
      for (uint32_t c = 0; c < features; ++c) {
        if (stream.Uniform(draw++) < 0.4f) {
          batch.column.push_back(c);
          batch.value.push_back(static_cast<float>(stream.Normal(draw++)));
        }
      }
      batch.row_begin.push_back(static_cast<uint32_t>(batch.column.size()));
    }
    if (form == BatchForm::kTable) {
      for (uint64_t k = 0; k < features; ++k) batch.keys.push_back(k * 0x9e3779b97f4a7c15u);
    }
  }
  for (size_t r = 0; r < rows; ++r) {
    batch.label.push_back(classes == 0 ? static_cast<float>(stream.Normal(draw++))
                                       : static_cast<float>(stream.Below(draw++, classes)));
  }
  return batch;
}

inline v1::ModelSpec ParseModel(const std::string& text) {
  v1::ModelSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  return spec;
}

template <typename T>
std::unique_ptr<Model<T>> Make(const std::string& text, uint64_t features, bool sparse) {
  ModelInput input;
  input.features = features;
  input.sparse = sparse;
  auto model = MakeModel<T>(ParseModel(text), input, {});
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : nullptr;
}

}  // namespace descent

#endif  // DESCENT_WORKER_MODELS_MODELS_TESTING_H_

// Writes a model for numpy_load_test.py to read. Usage: write_model_for_numpy DIR
#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "common/saved_model/model_writer.h"

int main(int argc, char** argv) {
  using namespace descent;
  if (argc != 2) return 2;
  ModelDescription description;
  description.slots = 16;
  description.specs = {{.name = "layer1/weights", .shape = {300, 200}, .initializer = {}},
                       {.name = "table", .sparse = true, .shape = {3}, .initializer = {}},
                       {.name = "bias", .shape = {200}, .initializer = {}}};
  Geometry geometry;
  geometry.slots = description.slots;
  std::vector<uint64_t> keys;
  for (uint64_t i = 0; i < 5000; ++i) keys.push_back(i * 0x9e3779b97f4a7c15u);
  std::sort(keys.begin(), keys.end(),
            [&](uint64_t a, uint64_t b) { return std::pair(geometry.slot(a), a) < std::pair(geometry.slot(b), b); });
  std::vector<float> weights, rows;
  for (size_t i = 0; i < 60000; ++i) weights.push_back(static_cast<float>(i) / 8);
  for (uint64_t key : keys) rows.insert(rows.end(), {static_cast<float>(key % 1000), 1.5f, -2.5f});
  const std::vector<float> bias(200, 0.1f);
  absl::Status status;
  auto writer = ModelWriter::Begin(argv[1], description);
  if (writer.ok()) {
    status.Update((*writer)->AppendDense(TensorId(0), weights));
    status.Update((*writer)->AppendRows(TensorId(1), keys, rows));
    status.Update((*writer)->AppendDense(TensorId(2), bias));
    status.Update((*writer)->Finish().status());
  } else {
    status = writer.status();
  }
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

#include "worker/loop/held_parameters.h"

#include <algorithm>
#include <cstring>

#include "common/wire/read_vector.h"

namespace descent {

bool HasTables(const std::vector<TensorSpec>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const TensorSpec& t) { return t.sparse; });
}

void WantRows(const std::vector<TensorSpec>& tensors, const std::vector<uint64_t>& keys,
              std::vector<AlignedFloats>* rows, PullSpec* pull) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].sparse) continue;
    (*rows)[i].Resize(keys.size() * tensors[i].dim());
    pull->sparse.push_back({TensorId(static_cast<uint32_t>(i)), keys, (*rows)[i].data()});
  }
}

HeldParameters::HeldParameters(const std::vector<TensorSpec>* tensors, const Geometry& geometry, bool versions)
    : tensors_(*tensors),
      geometry_(geometry),
      keeps_versions_(versions),
      has_tables_(HasTables(*tensors)),
      rows_(tensors->size()),
      gathered_(tensors->size()) {
  LayOut(tensors_, &dense_);
}

void HeldParameters::Want(const std::vector<const std::vector<uint64_t>*>& lists, PullSpec* pull) {
  pull->dense = dense_.dense;
  if (keeps_versions_) {
    versions_.clear();
    pull->versions = &versions_;
  }
  if (!has_tables_ || lists.empty()) return;
  keys_ = MergeKeys(geometry_, lists);
  WantRows(tensors_, keys_, &rows_, pull);
}

std::vector<const float*> HeldParameters::ForKeys(const std::vector<uint64_t>& keys) {
  std::vector<const float*> values = Dense();
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i].sparse) continue;
    if (keys.size() == keys_.size()) {
      values[i] = rows_[i].data();
      continue;
    }
    const size_t dim = tensors_[i].dim();
    AlignedFloats& out = gathered_[i];
    out.Resize(keys.size() * dim);
    size_t at = 0;
    for (size_t k = 0; k < keys.size(); ++k, ++at) {
      while (keys_[at] != keys[k]) ++at;
      std::memcpy(out.data() + k * dim, rows_[i].data() + at * dim, dim * sizeof(float));
    }
    values[i] = out.data();
  }
  return values;
}

std::string HeldParameters::ReadOf(const std::vector<uint64_t>& keys) const {
  std::vector<PartVersion> sorted = versions_;
  std::sort(sorted.begin(), sorted.end(), [](const PartVersion& a, const PartVersion& b) { return a.id < b.id; });
  std::vector<bool> touched(has_tables_ ? geometry_.slots : 0);
  for (uint64_t key : keys) touched[geometry_.slot(key)] = true;
  ReadVector read;
  for (const PartVersion& part : sorted) {
    if (!tensors_[part.id.tensor.value].sparse) {
      read.dense.push_back(part.version);
    } else if (touched[part.id.index]) {
      read.slots.push_back({part.id, part.version, part.steps});
    }
  }
  return EncodeRead(read);
}

}  // namespace descent

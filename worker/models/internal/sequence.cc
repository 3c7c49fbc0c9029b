#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "worker/models/internal/layer.h"

namespace descent::internal {

template <typename T>
void Sequence<T>::Add(LayerPtr<T> layer) {
  DESCENT_CHECK(layers_.empty() || layers_.back().layer->out() == layer->in());
  DESCENT_CHECK(!layers_.empty() || !layer->in_place());
  widest_ = std::max({widest_, layer->in(), layer->out()});
  const size_t first_tensor = tensors_.size();
  tensors_.insert(tensors_.end(), layer->tensors().begin(), layer->tensors().end());
  if (!layer->in_place()) values_.emplace_back();
  layers_.push_back({std::move(layer), first_tensor, values_.size() - 1});
}

template <typename T>
Rows<T> Sequence<T>::InputOf(size_t l, const Rows<T>& x) const {
  if (l == 0) return x;
  return {x.count, values_[layers_[l - 1].value].data(), nullptr, x.masks};
}

template <typename T>
T* Sequence<T>::Forward(const Rows<T>& x, absl::Span<const T* const> parameters) {
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Placed& placed = layers_[l];
    AlignedBuffer<T>& value = values_[placed.value];
    if (!placed.layer->in_place()) value.Resize(x.count * placed.layer->out());
    placed.layer->Forward(InputOf(l, x), parameters.subspan(placed.first_tensor, placed.layer->tensors().size()),
                          value.data());
  }
  return values_.back().data();
}

template <typename T>
void Sequence<T>::Backward(const Rows<T>& x, absl::Span<const T* const> parameters, T* delta,
                           absl::Span<T* const> gradient, T* below) {
  size_t next = 0;
  for (size_t l = layers_.size(); l-- > 0;) {
    Layer<T>& layer = *layers_[l].layer;
    const size_t first = layers_[l].first_tensor, count = layer.tensors().size();
    T* to = below;
    if (layer.in_place()) {
      to = delta;
    } else if (l > 0) {
      delta_[next].Resize(x.count * widest_);
      to = delta_[next].data();
      next = 1 - next;
    }
    layer.Backward(InputOf(l, x), parameters.subspan(first, count), values_[layers_[l].value].data(), delta,
                   gradient.subspan(first, count), to);
    delta = to;
  }
}

template class Sequence<float>;
template class Sequence<double>;

}  // namespace descent::internal

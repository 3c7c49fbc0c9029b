#include "common/job/convolution_spec.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace descent {
namespace {

constexpr uint64_t kMostSide = 65536;

// False: layer `at` has a field out of range, or does not fit what comes into it.
bool Check(const std::string& at, const v1::ConvolutionLayer& layer, const ConvolutionStage& stage, JobErrors* errors) {
  JobErrors own;
  own.Range<uint64_t>(at + ".filters", layer.filters(), 1, kMostSide);
  own.Range<uint64_t>(at + ".kernel", layer.kernel(), 1, kMostSide);
  own.Range<uint64_t>(at + ".stride", layer.stride(), 1, kMostSide);
  if (layer.padding() >= layer.kernel()) {
    own.Error(at + ".padding", layer.padding(), " is not below the kernel's size, ", layer.kernel());
  }
  if (layer.pool() == v1::NO_POOL && layer.pool_size() != 0)
    own.Error(at + ".pool_size", "is for MAX_POOL and AVERAGE_POOL");
  const auto fits = [&](const char* field, uint64_t size, uint64_t height, uint64_t in_height, uint64_t in_width) {
    if (height > in_height || size > in_width) {
      own.Error(absl::StrCat(at, field), size, " does not fit ", in_height, " x ", in_width);
    }
  };
  if (own.status().ok()) {
    fits(".kernel", stage.kernel_width, stage.kernel_height, stage.in.height + 2 * stage.padding_height,
         stage.in.width + 2 * stage.padding_width);
  }
  if (own.status().ok() && layer.pool() != v1::NO_POOL) {
    fits(".pool_size", stage.pool_width, stage.pool_height, stage.convolved.height, stage.convolved.width);
  }
  const bool good = own.status().ok();
  if (errors != nullptr) errors->Add(own);
  return good;
}

}  // namespace

std::vector<ConvolutionStage> StagesOf(const v1::Convolution& spec, JobErrors* errors) {
  std::vector<ConvolutionStage> stages;
  ImageExtent in = {spec.height(), spec.width(), spec.channels()};
  const bool line = spec.height() == 1;  // kernels and pools of height 1
  for (int l = 0; l < spec.layer_size(); ++l) {
    const v1::ConvolutionLayer& layer = spec.layer(l);
    ConvolutionStage stage;
    stage.in = in;
    stage.kernel_width = layer.kernel();
    stage.kernel_height = line ? 1 : layer.kernel();
    stage.stride = layer.stride();
    stage.padding_width = layer.padding();
    stage.padding_height = line ? 0 : layer.padding();
    const auto along = [&](uint64_t size, uint64_t padding, uint64_t kernel) {
      const uint64_t room = size + 2 * padding;
      return room < kernel || stage.stride == 0 ? 0 : (room - kernel) / stage.stride + 1;
    };
    stage.convolved = {along(in.height, stage.padding_height, stage.kernel_height),
                       along(in.width, stage.padding_width, stage.kernel_width), layer.filters()};
    stage.out = stage.convolved;
    if (layer.pool() != v1::NO_POOL) {
      stage.pool_width = layer.pool_size();
      stage.pool_height = line ? 1 : layer.pool_size();
      stage.out.height /= std::max<uint64_t>(1, stage.pool_height);
      stage.out.width /= std::max<uint64_t>(1, stage.pool_width);
    }
    if (!Check(absl::StrCat("model.convolution.layer[", l, "]"), layer, stage, errors)) break;
    in = stage.out;
    stages.push_back(stage);
  }
  return stages;
}

}  // namespace descent

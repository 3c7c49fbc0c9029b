#include "common/saved_model/model_description.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/files/crc32c.h"
#include "nlohmann/json.hpp"

namespace descent {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "descent-model";
constexpr int kVersion = 1;
constexpr const char* kRoles[] = {"TRAINABLE", "STATISTIC", "FROZEN", "AUXILIARY"};
constexpr const char* kInitializers[] = {"ZERO", "CONSTANT", "UNIFORM", "NORMAL", "ORTHOGONAL"};

template <size_t n>
int Find(const char* const (&names)[n], const std::string& name) {
  for (size_t i = 0; i < n; ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  return -1;
}

absl::Status Bad(absl::string_view file, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

}  // namespace

std::string ManifestToJson(const ModelManifest& manifest) {
  const ModelDescription& d = manifest.description;
  DESCENT_CHECK(manifest.rows.size() == d.specs.size());
  Json json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["parameters_sha256"] = manifest.parameters_sha256;
  json["clock"] = d.clock;
  json["seed"] = d.seed;
  json["slots"] = d.slots;
  json["features"] = d.features;
  json["sparse"] = d.sparse;
  json["classes"] = d.classes;
  if (!d.fitted.empty()) json["fitted_features"] = {{"file", kFeaturesFile}, {"crc32c", Crc32c(d.fitted)}};
  if (d.threshold.has_value()) json["threshold"] = *d.threshold;
  json["tensors"] = Json::array();
  for (size_t i = 0; i < d.specs.size(); ++i) {
    const TensorSpec& spec = d.specs[i];
    Json tensor;
    tensor["name"] = spec.name;
    tensor["kind"] = spec.sparse ? "table" : "dense";
    tensor["shape"] = spec.shape;
    if (spec.sparse) tensor["rows"] = manifest.rows[i];
    tensor["members"] = spec.sparse ? Json{spec.name + ".keys.npy", spec.name + ".rows.npy"} : Json{spec.name + ".npy"};
    tensor["role"] = kRoles[static_cast<int>(spec.role)];
    tensor["decay"] = spec.decay;
    tensor["initializer"] = {{"kind", kInitializers[static_cast<int>(spec.initializer.kind)]},
                             {"scale", spec.initializer.scale}};
    json["tensors"].push_back(std::move(tensor));
  }
  json["job"] = d.job_text;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<ModelManifest> ManifestFromJson(const std::string& text, absl::string_view file) {
  try {
    const Json json = Json::parse(text);
    if (json.at("format").get<std::string>() != kFormat) {
      return Bad(file, absl::StrCat("format: \"", kFormat, "\" was expected"));
    }
    if (json.at("version").get<int>() != kVersion) {
      return Bad(file, absl::StrCat("version: ", kVersion, " was expected, ", json.at("version").get<int>(), " came"));
    }
    ModelManifest manifest;
    ModelDescription& d = manifest.description;
    manifest.parameters_sha256 = json.at("parameters_sha256").get<std::string>();
    d.clock = json.at("clock").get<uint64_t>();
    d.seed = json.at("seed").get<uint64_t>();
    d.slots = json.at("slots").get<uint32_t>();
    d.features = json.at("features").get<uint64_t>();
    d.sparse = json.at("sparse").get<bool>();
    d.classes = json.at("classes").get<uint32_t>();
    if (json.contains("threshold")) d.threshold = json.at("threshold").get<double>();
    d.job_text = json.at("job").get<std::string>();
    if (json.contains("fitted_features")) {
      manifest.fitted_crc32c = json.at("fitted_features").at("crc32c").get<uint32_t>();
    }
    if (d.threshold.has_value() && !(*d.threshold >= 0 && *d.threshold <= 1)) {
      return Bad(file, absl::StrCat("threshold: a probability was expected, ", *d.threshold, " came"));
    }
    if (d.slots == 0 || (d.slots & (d.slots - 1)) != 0) return Bad(file, "slots: a power of two was expected");
    for (const Json& tensor : json.at("tensors")) {
      TensorSpec spec;
      spec.name = tensor.at("name").get<std::string>();
      const std::string kind = tensor.at("kind").get<std::string>();
      if (kind != "dense" && kind != "table") {
        return Bad(file, absl::StrCat("tensor \"", spec.name, "\": kind \"dense\" or \"table\" was expected, \"", kind,
                                      "\" came"));
      }
      spec.sparse = kind == "table";
      spec.shape = tensor.at("shape").get<std::vector<uint64_t>>();
      const int role = Find(kRoles, tensor.at("role").get<std::string>());
      const int initializer = Find(kInitializers, tensor.at("initializer").at("kind").get<std::string>());
      if (role < 0 || initializer < 0) {
        return Bad(file, absl::StrCat("tensor \"", spec.name, "\": unknown role or initializer"));
      }
      spec.role = static_cast<TensorRole>(role);
      spec.decay = tensor.at("decay").get<bool>();
      spec.initializer.kind = static_cast<Initializer::Kind>(initializer);
      spec.initializer.scale = tensor.at("initializer").at("scale").get<double>();
      manifest.rows.push_back(spec.sparse ? tensor.at("rows").get<uint64_t>() : 0);
      d.specs.push_back(std::move(spec));
    }
    const absl::Status valid = ValidateSpecs(d.specs, uint64_t{1} << 50);
    if (!valid.ok()) return Bad(file, std::string(valid.message()));
    for (const TensorSpec& spec : d.specs) {
      if (spec.sparse && spec.shape.size() != 1) return Bad(file, absl::StrCat("table \"", spec.name, "\": bad shape"));
    }
    return manifest;
  } catch (const nlohmann::json::exception& e) {
    return Bad(file, e.what());
  }
}

}  // namespace descent

#include "common/job/job_errors.h"

#include "absl/strings/str_join.h"
#include "common/job/field_names.h"

namespace descent {

using google::protobuf::FieldDescriptor;

void JobErrors::PositiveFloat(absl::string_view path, double value) {
  Positive(path, value);
  if (value > 0 && std::isfinite(value) && !std::isnormal(static_cast<float>(value))) {
    Error(path, value, " is beyond float32");
  }
}

void JobErrors::FloatFromZero(absl::string_view path, double value) {
  if (!std::isfinite(value)) return;
  if (value < 0) {
    Error(path, value, " is below 0");
  } else if (!std::isfinite(static_cast<float>(value))) {
    Error(path, value, " is beyond float32");
  }
}

void JobErrors::Share(absl::string_view path, double value) {
  if (!std::isfinite(value)) return;
  if (!(value >= 0 && value < 1)) {
    Error(path, value, " is not from 0 to below 1");
  } else if (!(static_cast<float>(value) < 1)) {
    Error(path, value, " is 1 in float32, and not below");
  }
}

void JobErrors::Plain(const google::protobuf::Message& message, const std::string& prefix) {
  const auto* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = prefix.empty() ? field->name() : absl::StrCat(prefix, ".", field->name());
    if (field->is_repeated()) continue;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        Plain(reflection->GetMessage(message, field), path);
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        if (const double value = reflection->GetDouble(message, field); !std::isfinite(value)) {
          Error(path, value, " is not a finite number");
        }
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        if (const int value = reflection->GetEnumValue(message, field);
            field->enum_type()->FindValueByNumber(value) == nullptr) {
          Error(path, value, " is none of ", absl::StrJoin(ValueNames(*field->enum_type()), ", "));
        }
        break;
      default:
        break;
    }
  }
}

absl::Status JobErrors::status() const {
  return lines_.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrJoin(lines_, "\n"));
}

}  // namespace descent

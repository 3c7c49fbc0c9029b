// --set path=value, by reflection.
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/job/field_names.h"
#include "common/job/job.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"

namespace descent {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

struct Step {
  std::string name;
  bool indexed = false;
  std::string index;  // between the brackets
};

absl::StatusOr<std::vector<Step>> SplitPath(absl::string_view path) {
  std::vector<Step> steps;
  size_t at = 0;
  while (true) {
    Step step;
    while (at < path.size() && path[at] != '.' && path[at] != '[') step.name.push_back(path[at++]);
    if (step.name.empty()) return absl::InvalidArgumentError(absl::StrCat("`", path, "`: a field's name is missing"));
    if (at < path.size() && path[at] == '[') {
      const size_t end = path.find(']', at);
      if (end == absl::string_view::npos)
        return absl::InvalidArgumentError(absl::StrCat("`", path, "`: `]` is missing"));
      step.indexed = true;
      step.index = std::string(path.substr(at + 1, end - at - 1));
      at = end + 1;
    }
    steps.push_back(step);
    if (at == path.size()) return steps;
    if (path[at] != '.') return absl::InvalidArgumentError(absl::StrCat("`", path, "`: expected `.` after `]`"));
    ++at;
  }
}

// The first '=' outside of brackets, which may hold a map's key.
size_t Assign(absl::string_view text) {
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[') inside = true;
    if (text[i] == ']') inside = false;
    if (text[i] == '=' && !inside) return i;
  }
  return absl::string_view::npos;
}

template <typename Int>
absl::Status BadNumber(absl::string_view value) {
  return absl::InvalidArgumentError(absl::StrCat("expected a whole number from ", std::numeric_limits<Int>::min(),
                                                 " to ", std::numeric_limits<Int>::max(), ", got `", value, "`"));
}

struct Element {
  enum class Where { kField, kAdd, kAt } where = Where::kField;
  int index = 0;
};

// One setter for the three forms that reflection has for each type.
#define DESCENT_SET(Type, value_expression)                                           \
  switch (element.where) {                                                            \
    case Element::Where::kField:                                                      \
      reflection->Set##Type(message, field, value_expression);                        \
      break;                                                                          \
    case Element::Where::kAdd:                                                        \
      reflection->Add##Type(message, field, value_expression);                        \
      break;                                                                          \
    case Element::Where::kAt:                                                         \
      reflection->SetRepeated##Type(message, field, element.index, value_expression); \
      break;                                                                          \
  }                                                                                   \
  return absl::OkStatus()

absl::Status SetScalar(absl::string_view value, const FieldDescriptor* field, Element element, Message* message) {
  const Reflection* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t number;
      if (!absl::SimpleAtoi(value, &number)) return BadNumber<int32_t>(value);
      DESCENT_SET(Int32, number);
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t number;
      if (!absl::SimpleAtoi(value, &number)) return BadNumber<int64_t>(value);
      DESCENT_SET(Int64, number);
    }
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t number;
      if (!absl::SimpleAtoi(value, &number)) return BadNumber<uint32_t>(value);
      DESCENT_SET(UInt32, number);
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t number;
      if (!absl::SimpleAtoi(value, &number)) return BadNumber<uint64_t>(value);
      DESCENT_SET(UInt64, number);
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double number;
      if (!absl::SimpleAtod(value, &number)) {
        return absl::InvalidArgumentError(absl::StrCat("expected a number, got `", value, "`"));
      }
      DESCENT_SET(Double, number);
    }
    case FieldDescriptor::CPPTYPE_FLOAT: {
      float number;
      if (!absl::SimpleAtof(value, &number)) {
        return absl::InvalidArgumentError(absl::StrCat("expected a number, got `", value, "`"));
      }
      DESCENT_SET(Float, number);
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      bool flag;
      if (!absl::SimpleAtob(value, &flag)) {
        return absl::InvalidArgumentError(absl::StrCat("expected true or false, got `", value, "`"));
      }
      DESCENT_SET(Bool, flag);
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text(value);
      DESCENT_SET(String, text);
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto* type = field->enum_type();
      const auto* found = type->FindValueByName(std::string(value));
      if (found == nullptr) found = type->FindValueByName(absl::AsciiStrToUpper(value));
      if (found == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat("unknown value `", value, "`; ", Suggestion(value, ValueNames(*type))));
      }
      DESCENT_SET(Enum, found);
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return absl::InvalidArgumentError("can't be set to a plain value");
}
#undef DESCENT_SET

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty()) text = std::string(absl::StripSuffix(message, "."));
  }
  std::string text;
};

// "optimizer={ momentum { momentum: 0.5 } }": a message in text format replaces the field.
absl::Status SetMessage(absl::string_view value, const FieldDescriptor* field, Message* message) {
  absl::string_view text = absl::StripAsciiWhitespace(value);
  if (!absl::ConsumePrefix(&text, "{") || !absl::ConsumeSuffix(&text, "}")) {
    return absl::InvalidArgumentError(absl::StrCat("is a group of fields: set one of them (",
                                                   absl::StrJoin(FieldNames(*field->message_type()), ", "),
                                                   "), or all with { ... }"));
  }
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.SetRecursionLimit(64);
  Message* child = message->GetReflection()->MutableMessage(message, field);
  child->Clear();
  if (!parser.ParseFromString(std::string(text), child)) return absl::InvalidArgumentError(error.text);
  return absl::OkStatus();
}

absl::Status SetMapEntry(absl::string_view key, absl::string_view value, const FieldDescriptor* field,
                         Message* message) {
  const Reflection* reflection = message->GetReflection();
  const FieldDescriptor* key_field = field->message_type()->map_key();
  const FieldDescriptor* value_field = field->message_type()->map_value();
  if (key_field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
    return absl::InvalidArgumentError("only maps with text keys can be set here");
  }
  for (int i = 0; i < reflection->FieldSize(*message, field); ++i) {
    Message* entry = reflection->MutableRepeatedMessage(message, field, i);
    if (entry->GetReflection()->GetString(*entry, key_field) == std::string(key)) {
      return SetScalar(value, value_field, {}, entry);
    }
  }
  Message* entry = reflection->AddMessage(message, field);
  entry->GetReflection()->SetString(entry, key_field, std::string(key));
  return SetScalar(value, value_field, {}, entry);
}

absl::Status SetLast(const Step& step, absl::string_view value, const FieldDescriptor* field, Message* message) {
  const Reflection* reflection = message->GetReflection();
  if (field->is_map()) {
    if (!step.indexed) {
      return absl::InvalidArgumentError(absl::StrCat("is a map: set one entry, as ", step.name, "[key]=value"));
    }
    return SetMapEntry(step.index, value, field, message);
  }
  if (field->is_repeated()) {
    if (step.indexed) {
      const int size = reflection->FieldSize(*message, field);
      int index;
      if (!absl::SimpleAtoi(step.index, &index) || index < 0 || index > size) {
        return absl::InvalidArgumentError(
            absl::StrCat("has ", size, " elements: expected an index from 0 to ", size, ", got `", step.index, "`"));
      }
      return SetScalar(value, field, {index == size ? Element::Where::kAdd : Element::Where::kAt, index}, message);
    }
    reflection->ClearField(message, field);
    if (value.empty()) return absl::OkStatus();
    for (const absl::string_view part : absl::StrSplit(value, ',')) {
      DESCENT_RETURN_IF_ERROR(SetScalar(part, field, {Element::Where::kAdd, 0}, message));
    }
    return absl::OkStatus();
  }
  if (step.indexed) return absl::InvalidArgumentError("is one value: no [index]");
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) return SetMessage(value, field, message);
  return SetScalar(value, field, {}, message);
}

}  // namespace

absl::Status OverrideJob(absl::string_view assignment, v1::JobSpec* job) {
  const size_t equals = Assign(assignment);
  if (equals == absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("--set ", assignment, ": expected path=value"));
  }
  const absl::string_view path = absl::StripAsciiWhitespace(assignment.substr(0, equals));
  const absl::string_view value = assignment.substr(equals + 1);
  const auto steps = SplitPath(path);
  if (!steps.ok()) return absl::InvalidArgumentError(absl::StrCat("--set ", steps.status().message()));

  v1::JobSpec changed = *job;  // an error leaves the job as it was
  Message* message = &changed;
  std::string so_far;
  for (size_t i = 0; i < steps->size(); ++i) {
    const Step& step = (*steps)[i];
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(step.name);
    if (field == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("--set ", path, ": unknown field `", step.name, "` in ",
                                                     so_far.empty() ? "the job" : absl::StrCat("`", so_far, "`"), "; ",
                                                     Suggestion(step.name, FieldNames(*message->GetDescriptor()))));
    }
    absl::StrAppend(&so_far, so_far.empty() ? "" : ".", step.name);
    if (i + 1 == steps->size()) {
      const absl::Status set = SetLast(step, value, field, message);
      if (!set.ok()) return absl::InvalidArgumentError(absl::StrCat("--set ", path, ": ", set.message()));
      break;
    }
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated() || step.indexed) {
      return absl::InvalidArgumentError(absl::StrCat("--set ", path, ": `", so_far, "` has no fields of its own"));
    }
    message = message->GetReflection()->MutableMessage(message, field);
  }
  *job = std::move(changed);
  return absl::OkStatus();
}

}  // namespace descent

// What a field of one CSV column is stored as where it is not simply a number: the number of its category, its hash, or
// NaN for a value that is missing. Use from one thread at a time.
#ifndef DESCENT_WORKER_DATA_CSV_CELLS_H_
#define DESCENT_WORKER_DATA_CSV_CELLS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "worker/data/dataset.h"

namespace descent {

class CsvCells {
 public:
  // `options` outlives it.
  CsvCells(const CsvColumns* options, DataColumn::Kind kind, std::string name) : options_(options) {
    column_.kind = kind;
    column_.name = std::move(name);
  }

  bool number() const { return column_.kind == DataColumn::Kind::kNumber; }
  bool Missing(absl::string_view text) const {
    return options_->missing && (text.empty() || std::find(options_->markers.begin(), options_->markers.end(), text) !=
                                                     options_->markers.end());
  }
  // Of a column that is not of numbers. False: a category too many.
  bool Code(absl::string_view text, float* code) {
    if (column_.kind == DataColumn::Kind::kHashed) {
      const uint64_t hash = Hash(text);
      const auto bucket = static_cast<float>(1 + (hash >> 1) % options_->buckets);
      *code = (hash & 1) != 0 ? -bucket : bucket;
      return true;
    }
    const auto found = number_of_.find(text);
    if (found != number_of_.end()) {
      *code = static_cast<float>(found->second);
      return true;
    }
    if (column_.categories.size() >= options_->most_categories) return false;
    *code = static_cast<float>(column_.categories.size());
    number_of_.emplace(std::string(text), static_cast<uint32_t>(column_.categories.size()));
    column_.categories.emplace_back(text);
    return true;
  }
  DataColumn Take() { return std::move(column_); }

 private:
  // FNV-1a of "column=text", finished as SplitMix64 finishes: its low bits alone are poor.
  uint64_t Hash(absl::string_view text) const {
    uint64_t hash = 0xcbf29ce484222325u;
    const auto add = [&hash](absl::string_view part) {
      for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    };
    add(column_.name);
    add("=");
    add(text);
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
    return hash ^ (hash >> 31);
  }

  const CsvColumns* options_;
  DataColumn column_;
  absl::flat_hash_map<std::string, uint32_t> number_of_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_CSV_CELLS_H_

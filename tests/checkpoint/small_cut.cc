#include "tests/checkpoint/small_cut.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/tensor/tensor_spec.h"

namespace descent::testing {
namespace {

constexpr uint32_t kSlots = 4, kBlockElements = 4, kElements = 10, kDim = 2;

template <typename T>
void AppendNumber(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::vector<uint64_t> KeysOf(uint32_t slot) {
  std::vector<uint64_t> keys;
  if (slot == kSlots - 1) return keys;
  const Geometry geometry{kBlockElements, kSlots};
  for (uint64_t key = 1; keys.size() < 3; ++key) {
    if (geometry.slot(key) == slot) keys.push_back(key);
  }
  return keys;
}

float Value(const CutId& cut, BlockId block, uint64_t i) {
  return static_cast<float>(cut.number * 1000 + block.tensor.value * 100 + block.index * 10 + i);
}

}  // namespace

std::vector<BlockId> TestBlocks() {
  std::vector<BlockId> blocks;
  for (uint32_t i = 0; i < 3; ++i) blocks.push_back(BlockId{TensorId(0), i});
  for (uint32_t i = 0; i < kSlots; ++i) blocks.push_back(BlockId{TensorId(1), i});
  return blocks;
}

std::vector<TestRecord> RecordsOf(const CutId& cut, BlockId block) {
  TestRecord record;
  record.header.set_tensor(block.tensor.value);
  record.header.set_index(block.index);
  record.header.set_version(cut.number);
  record.header.set_steps(cut.number);
  record.header.set_state_slots(1);
  for (int r = 0; r < 2; ++r) record.header.add_mark(cut.number);
  if (block.tensor == TensorId(0)) {
    const uint32_t elements = block.index < 2 ? kBlockElements : kElements % kBlockElements;
    for (uint64_t i = 0; i < 2 * elements; ++i) AppendNumber(Value(cut, block, i), &record.payload);
    return {record};
  }
  std::vector<TestRecord> records;
  std::vector<uint64_t> keys = KeysOf(block.index);
  const size_t most = block.index == 0 ? 2 : 3;
  do {
    const size_t n = std::min(most, keys.size());
    record.payload.clear();
    record.header.set_keys(static_cast<uint32_t>(n));
    record.header.set_more(n < keys.size());
    for (size_t i = 0; i < n; ++i) AppendNumber(keys[i], &record.payload);
    for (size_t i = 0; i < 2 * kDim * n; ++i) AppendNumber(Value(cut, block, keys[0] + i), &record.payload);
    keys.erase(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(n));
    records.push_back(record);
  } while (!keys.empty());
  return records;
}

v1::CutManifest TestManifest(const CutId& cut) {
  v1::CutManifest manifest;
  manifest.set_format(kCutFormat);
  manifest.set_run(cut.run.value);
  manifest.set_generation(cut.generation.value);
  manifest.set_number(cut.number);
  for (int r = 0; r < 2; ++r) manifest.add_restart_clock(cut.number);
  manifest.set_job_text("name: \"small\"\n");
  manifest.set_job_fingerprint(kTestJob);
  v1::TensorSpec* w = manifest.add_tensor();
  w->set_name("w");
  w->add_shape(kElements);
  v1::TensorSpec* t = manifest.add_tensor();
  t->set_name("t");
  t->set_sparse(true);
  t->add_shape(kDim);
  manifest.set_block_elements(kBlockElements);
  manifest.set_slots(kSlots);
  manifest.mutable_numerics()->set_build("test");
  manifest.add_blocks(3);
  manifest.add_blocks(kSlots);
  manifest.set_coordinator_state("state");
  manifest.set_created_unix_micros(1700000000000000);
  return manifest;
}

absl::StatusOr<v1::PartFile> WritePart(Storage* storage, const std::string& folder, const CutId& cut, ServerId server,
                                       const std::vector<TestRecord>& records) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<PartFileWriter> writer,
                           PartFileWriter::Create(storage, folder, cut, server));
  for (const TestRecord& record : records) {
    // In two pieces, as a store's payloads may be.
    const size_t half = record.payload.size() / 2;
    Payload payload;
    payload.Append(record.payload.data(), half, nullptr);
    payload.Append(record.payload.data() + half, record.payload.size() - half, nullptr);
    DESCENT_RETURN_IF_ERROR(writer->Append(record.header, payload));
  }
  return writer->Finish();
}

absl::Status WriteCut(Storage* storage, CheckpointFolder* folder, const CutId& cut, uint32_t servers) {
  DESCENT_RETURN_IF_ERROR(folder->Prepare(cut));
  v1::CutManifest manifest = TestManifest(cut);
  const std::vector<BlockId> blocks = TestBlocks();
  for (uint32_t s = 0; s < servers; ++s) {
    std::vector<TestRecord> records;
    for (size_t b = s; b < blocks.size(); b += servers) {
      for (TestRecord& record : RecordsOf(cut, blocks[b])) records.push_back(std::move(record));
    }
    DESCENT_ASSIGN_OR_RETURN(*manifest.add_part(), WritePart(storage, folder->CutPath(cut), cut, ServerId(s), records));
  }
  return folder->Commit(manifest);
}

CutContents ExpectedContents(const CutId& cut) {
  CutContents contents;
  for (const BlockId block : TestBlocks()) {
    std::string& bytes = contents[block];
    for (const TestRecord& record : RecordsOf(cut, block)) bytes += record.payload;
  }
  return contents;
}

absl::StatusOr<CutContents> ReadCut(Storage* storage, const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<CutReader> reader, CutReader::Open(storage, path));
  CutContents contents;
  DESCENT_RETURN_IF_ERROR(reader->ForEach([](BlockId) { return true; },
                                          [&](const v1::CutRecord& header, const Payload& payload) {
                                            std::string bytes(payload.size(), '\0');
                                            payload.CopyTo(bytes.data());
                                            contents[BlockId{TensorId(header.tensor()), header.index()}] += bytes;
                                            return absl::OkStatus();
                                          }));
  return contents;
}

}  // namespace descent::testing

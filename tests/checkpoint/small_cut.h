// A model of two tensors and cuts of it, small enough to damage every byte of one: 'w' float32[10] in three blocks, and
// the table 't' with rows of two in four slots, of which the last is empty and the first takes two records. Two ranks,
// one optimizer vector. The contents are a function of the cut's number and the block.
#ifndef DESCENT_TESTS_CHECKPOINT_SMALL_CUT_H_
#define DESCENT_TESTS_CHECKPOINT_SMALL_CUT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/storage/storage.h"
#include "descent/v1/checkpoint.pb.h"
#include "server/checkpoint/checkpoint_folder.h"
#include "server/checkpoint/cut_reader.h"

namespace descent::testing {

inline constexpr uint64_t kTestRun = 0xfeedfeed12345678u;
inline constexpr uint64_t kTestJob = 0x1122334455667788u;

inline CutId TestCut(uint64_t generation, uint64_t number) {
  return CutId{RunId(kTestRun), Generation(generation), number};
}

struct TestRecord {
  v1::CutRecord header;
  std::string payload;
};

std::vector<BlockId> TestBlocks();
// What a server would write for a block; two records for slot 0.
std::vector<TestRecord> RecordsOf(const CutId& cut, BlockId block);
// Without part files.
v1::CutManifest TestManifest(const CutId& cut);

// Writes these records as a server's part.
absl::StatusOr<v1::PartFile> WritePart(Storage* storage, const std::string& folder, const CutId& cut, ServerId server,
                                       const std::vector<TestRecord>& records);
// Prepares, writes the parts of so many servers, commits. The first error.
absl::Status WriteCut(Storage* storage, CheckpointFolder* folder, const CutId& cut, uint32_t servers);

// Block -> its payloads in the order in which they came.
using CutContents = std::map<BlockId, std::string>;
CutContents ExpectedContents(const CutId& cut);
absl::StatusOr<CutContents> ReadCut(Storage* storage, const std::string& path);

}  // namespace descent::testing

#endif  // DESCENT_TESTS_CHECKPOINT_SMALL_CUT_H_

// DESCENT_FIRST_SEED and DESCENT_SEEDS are given by the build, which splits the seeds among processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/simulation/campaign.h"
#include "tests/simulation/scenario.h"

namespace descent::simulation {
namespace {

TEST(SimulationTest, EverySeedHolds) {
  Campaign campaign;
  for (uint64_t i = 0; i < DESCENT_SEEDS && campaign.errors.size() < 5; ++i) {
    campaign.Run(DESCENT_FIRST_SEED + i, Faults());
  }
  std::printf("%s", campaign.Report().c_str());
  EXPECT_THAT(campaign.errors, ::testing::IsEmpty());
  EXPECT_THAT(campaign.Uncovered(), ::testing::IsEmpty());
}

#if DESCENT_FIRST_SEED == 0
// A bug that the simulator does not find is one that it would not find in earnest either.
TEST(SimulationTest, EverySeededBugIsFound) {
  for (const auto& [name, faults] : AllFaults()) {
    Campaign campaign;
    uint64_t seed = 0;
    while (seed < 2000 && campaign.Run(seed, faults)) ++seed;
    ASSERT_FALSE(campaign.errors.empty()) << name << " was not found in 2000 seeds";
    std::printf("%s: found with seed %llu: %s\n", name.c_str(), static_cast<unsigned long long>(seed),
                campaign.errors[0].second.substr(0, 200).c_str());
  }
}

// With the gate one clock too wide, in every bounded mode there is.
TEST(SimulationTest, AGateThatIsOffByOneIsFoundInEveryMode) {
  Faults faults;
  faults.server = EngineFault::kGateOffByOne;
  for (uint64_t job : {0, 1, 2, 3, 4, 5}) {
    Campaign campaign;
    uint64_t seed = job;
    while (seed < 2000 && campaign.Run(seed, faults)) seed += kJobs;
    EXPECT_FALSE(campaign.errors.empty()) << "staleness " << MakeJob(job).staleness << ", job " << job;
  }
}

std::string Output(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  pclose(pipe);
  return out;
}

TEST(SimulationTest, ASeedReplaysToTheSameTraceInAnotherProcess) {
  const char* dir = std::getenv("DESCENT_BINARY_DIR");
  ASSERT_NE(dir, nullptr) << "run by ctest";
  std::string before;
  for (uint64_t seed : {3, 17, 101, 1234}) {
    const SimulationResult here = Simulate({seed, EngineFault::kNone, {}});
    const std::string there = Output(absl::StrCat(dir, "/descent_simulate --seed ", seed));
    const std::string trace = absl::StrCat("trace ", absl::Hex(here.trace_hash, absl::kZeroPad16));
    EXPECT_THAT(there, ::testing::HasSubstr(trace)) << "seed " << seed;
    EXPECT_EQ(there, Output(absl::StrCat(dir, "/descent_simulate --seed ", seed)));
    EXPECT_NE(there, before);
    before = there;
  }
}
#endif

}  // namespace
}  // namespace descent::simulation

#include "common/net/shared_slots.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

Payload Of(const std::string& bytes) {
  Payload payload;
  payload.Append(bytes.data(), bytes.size(), nullptr);
  return payload;
}
std::string Text(const Payload& payload) {
  std::string text(payload.size(), '\0');
  payload.CopyTo(text.data());
  return text;
}
// What lies in a slot of the other side.
Payload Take(const std::shared_ptr<SharedSlots>& slots, uint32_t slot, size_t size) {
  Payload out;
  EXPECT_EQ(slots->Take(slot, size, &out), absl::OkStatus());
  return out;
}
std::string Bytes(size_t size, char seed = 'a') {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(seed + i * 31);
  return bytes;
}

class SharedSlotsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = SharedSlots::Make();
    ASSERT_TRUE(made.ok()) << made.status();
    client_ = *std::move(made);
    auto opened = SharedSlots::Open(client_->offer());
    ASSERT_TRUE(opened.ok()) << opened.status();
    server_ = *std::move(opened);
  }
  std::shared_ptr<SharedSlots> client_, server_;
};

TEST_F(SharedSlotsTest, PayloadsGoBothWays) {
  for (const size_t size : {SharedSlots::kLeastBytes, size_t{100001}, SharedSlots::kSlotBytes}) {
    const std::string there = Bytes(size, 'x'), back = Bytes(size, 'q');
    Payload pieces;
    pieces.Append(there.data(), 1000, nullptr);
    pieces.Append(there.data() + 1000, size - 1000, nullptr);
    const auto request = client_->Put(pieces), reply = server_->Put(Of(back));
    ASSERT_TRUE(request.has_value() && reply.has_value());
    EXPECT_EQ(Text(Take(server_, *request, size)), there);
    EXPECT_EQ(Text(Take(client_, *reply, size)), back);
  }
}

TEST_F(SharedSlotsTest, ASlotIsFreeWhenTheLastOwnerIsGone) {
  const std::string bytes = Bytes(5000);
  std::vector<Payload> kept;
  for (uint32_t i = 0; i < SharedSlots::kSlots; ++i) {
    const auto slot = client_->Put(Of(bytes));
    ASSERT_EQ(slot, i) << "the lowest that is free";
    kept.push_back(Take(server_, *slot, bytes.size()));
  }
  EXPECT_EQ(client_->Put(Of(bytes)), std::nullopt) << "it goes over the stream";
  const Payload part = kept[3].Sub(100, 200);
  kept[3] = Payload();
  EXPECT_EQ(client_->Put(Of(bytes)), std::nullopt);
  EXPECT_EQ(Text(part), bytes.substr(100, 200));
  kept[7] = Payload();
  EXPECT_EQ(client_->Put(Of(bytes)), 7u);
}

TEST_F(SharedSlotsTest, WhatIsTakenOutlivesBothEnds) {
  const std::string bytes = Bytes(5000);
  const auto slot = client_->Put(Of(bytes));
  const Payload taken = Take(server_, *slot, bytes.size());
  client_.reset();
  server_.reset();
  EXPECT_EQ(Text(taken), bytes);
}

TEST_F(SharedSlotsTest, SmallAndLargePayloadsGoOverTheStream) {
  EXPECT_EQ(client_->Put(Of(Bytes(SharedSlots::kLeastBytes - 1))), std::nullopt);
  EXPECT_EQ(client_->Put(Of(Bytes(SharedSlots::kSlotBytes + 1))), std::nullopt);
  EXPECT_EQ(client_->Put(Payload()), std::nullopt);
}

TEST_F(SharedSlotsTest, WhatAPeerSaysIsChecked) {
  const auto slot = client_->Put(Of(Bytes(5000)));
  Payload none;
  EXPECT_THAT(server_->Take(SharedSlots::kSlots, 10, &none).message(), HasSubstr("in slot 48"));
  EXPECT_THAT(server_->Take(*slot, SharedSlots::kSlotBytes + 1, &none).message(), HasSubstr("524289 bytes"));
  EXPECT_THAT(server_->Take(*slot, 0, &none).message(), HasSubstr("0 bytes"));
  EXPECT_THAT(server_->Take(*slot + 1, 10, &none).message(), HasSubstr("has no payload"));
  EXPECT_THAT(client_->Take(*slot, 10, &none).message(), HasSubstr("has no payload")) << "its own side";
}

TEST_F(SharedSlotsTest, OffersOfSomethingElseAreRefused) {
  for (const std::string offer : {"", "1", "1/2", "1/2/x", "-1/2/3", "1/2/3/4", "../1/3"}) {
    EXPECT_EQ(SharedSlots::Open(offer).status().code(), absl::StatusCode::kInvalidArgument) << offer;
  }
  const std::string offer = client_->offer();
  const std::string numbered = offer.substr(0, offer.size() - 1) + (offer.back() == '0' ? "1" : "0");
  EXPECT_THAT(SharedSlots::Open(numbered).status().message(), HasSubstr("not the shared memory")) << "its number";
  EXPECT_FALSE(SharedSlots::Open(absl::StrCat(getpid(), "/1000000/1")).ok());
  // A pipe, on which an open could wait; memory that may shrink.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_THAT(SharedSlots::Open(absl::StrCat(getpid(), "/", ends[0], "/1")).status().message(), HasSubstr("not the"));
  const int loose = memfd_create("loose", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(loose, 64 << 20), 0);
  EXPECT_THAT(SharedSlots::Open(absl::StrCat(getpid(), "/", loose, "/1")).status().message(), HasSubstr("not the"));
  for (const int fd : {ends[0], ends[1], loose}) close(fd);
}

TEST_F(SharedSlotsTest, AnotherProcessReadsWhatWasPut) {
  const std::string bytes = Bytes(70000), offer = client_->offer();
  const auto slot = client_->Put(Of(bytes));
  const pid_t child = fork();
  if (child == 0) {
    const auto opened = SharedSlots::Open(offer);
    if (!opened.ok()) _exit(2);
    Payload taken;
    const bool there = (*opened)->Take(*slot, bytes.size(), &taken).ok();
    _exit(there && Text(taken) == bytes && (*opened)->Put(taken) == 0u ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(Text(Take(client_, 0, bytes.size())), bytes) << "also of one that has died";
}

}  // namespace
}  // namespace descent

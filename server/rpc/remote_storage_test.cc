// A part of a cut goes to the coordinator's folder and comes back, over a real socket.
#include "server/rpc/remote_storage.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/checkpoint/part_file.h"
#include "server/rpc/checkpoint_store_service.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RemoteStorageTest : public ::testing::Test {
 protected:
  RemoteStorageTest() {
    char name[] = "/tmp/remote-storage-XXXXXX";
    root_ = mkdtemp(name);
    local_ = MakePosixStorage(root_);
    EXPECT_TRUE(local_->MakeFolder("cut-000000000007-g1").ok());
    service_ = std::make_unique<CheckpointStoreService>(
        local_.get(), [](const std::string& folder, ServerId) { return folder == "cut-000000000007-g1"; });
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_->service());
    server_ = builder.BuildAndStart();
    remote_ = MakeRemoteStorage(absl::StrCat("127.0.0.1:", port));
  }
  ~RemoteStorageTest() override {
    server_->Shutdown();
    EXPECT_TRUE(local_->Remove("cut-000000000007-g1").ok());
    rmdir(root_.c_str());
  }

  std::string root_;
  std::unique_ptr<Storage> local_, remote_;
  std::unique_ptr<CheckpointStoreService> service_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(RemoteStorageTest, APartFileGoesThereAndComesBack) {
  const CutId cut{RunId(9), Generation(1), 7};
  auto writer = PartFileWriter::Create(remote_.get(), "cut-000000000007-g1", cut, ServerId(2));
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::string bytes(3'500'000, 'x');
  Payload payload;
  payload.Append(bytes.data(), bytes.size(), nullptr);
  v1::CutRecord header;
  header.set_index(5);
  ASSERT_TRUE((*writer)->Append(header, payload).ok());
  const auto summary = (*writer)->Finish();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(*local_->Size("cut-000000000007-g1/server-2.part"), summary->bytes());
  EXPECT_THAT(*remote_->List("cut-000000000007-g1"), ElementsAre("server-2.part"));

  auto reader = PartFileReader::Open(remote_.get(), "cut-000000000007-g1/server-2.part", 1000);
  ASSERT_TRUE(reader.ok()) << reader.status();
  v1::CutRecord back;
  ASSERT_TRUE(*(*reader)->NextHeader(&back));
  EXPECT_EQ(back.index(), 5u);
  const auto taken = (*reader)->TakePayload();
  ASSERT_TRUE(taken.ok()) << taken.status();
  std::string copy(taken->size(), 0);
  taken->CopyTo(copy.data());
  EXPECT_EQ(copy, bytes);
}

TEST_F(RemoteStorageTest, NothingButPartFilesIsWrittenAndNothingOutsideIsRead) {
  for (const char* path : {"MANIFEST", "cut-000000000007-g1/MANIFEST", "../x", "cut-000000000007-g1/../server-1.part",
                           "generation-9", "/etc/passwd"}) {
    const auto file = remote_->Create(path);
    const absl::Status status = file.ok() ? (*file)->Sync() : file.status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << path << ": " << status;
  }
  EXPECT_TRUE(absl::IsFailedPrecondition((*remote_->Create("cut-000000000008-g1/server-1.part"))->Sync()));
  EXPECT_TRUE(absl::IsInvalidArgument(remote_->Open("../etc/passwd").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(remote_->List("..").status()));
  EXPECT_TRUE(absl::IsNotFound(remote_->Open("cut-000000000007-g1/server-8.part").status()));
}

TEST_F(RemoteStorageTest, HalfAFileIsNoFile) {
  {
    const auto file = remote_->Create("cut-000000000007-g1/server-1.part");
    ASSERT_TRUE((*file)->Append(std::string(2'000'000, 'y')).ok());
  }
  // The same name again, of the same try: refused, so that two writers can't mix.
  ASSERT_TRUE(local_->Create("cut-000000000007-g1/server-3.part").ok());
  const auto second = remote_->Create("cut-000000000007-g1/server-3.part");
  EXPECT_THAT((*second)->Sync(), ::testing::Truly([](const absl::Status& s) { return absl::IsAlreadyExists(s); }));
}

}  // namespace
}  // namespace descent

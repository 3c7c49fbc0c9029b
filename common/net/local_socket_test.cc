#include "common/net/local_socket.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"

namespace descent {
namespace {

constexpr absl::Duration kSoon = absl::Seconds(30);

// No other process has it.
std::string Address() { return absl::StrCat("local-socket-test:", getpid()); }

// What a listener has taken.
class Taken {
 public:
  LocalListener::Taker taker() {
    return [this](FileDescriptor fd) {
      MutexLock lock(&mu_);
      taken_.push_back(std::move(fd));
      changed_.SignalAll();
    };
  }
  FileDescriptor Next() {
    MutexLock lock(&mu_);
    const absl::Time deadline = absl::Now() + kSoon;
    while (taken_.empty() && absl::Now() < deadline) changed_.WaitUntil(&mu_, deadline);
    if (taken_.empty()) return FileDescriptor();
    FileDescriptor fd = std::move(taken_.front());
    taken_.pop_front();
    return fd;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::deque<FileDescriptor> taken_ ABSL_GUARDED_BY(mu_);
};

// One byte, or -1: the other end is closed.
int Read(const FileDescriptor& fd) {
  pollfd wait{fd.get(), POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(kSoon))), 1);
  char byte = 0;
  return read(fd.get(), &byte, 1) == 1 ? byte : -1;
}

TEST(LocalSocketTest, CarriesBytesBothWays) {
  Taken taken;
  auto listener = LocalListener::Listen(Address(), taken.taker());
  ASSERT_TRUE(listener.ok()) << listener.status();
  for (int i = 0; i < 3; ++i) {
    auto client = ConnectLocally(Address());
    ASSERT_TRUE(client.ok()) << client.status();
    FileDescriptor server = taken.Next();
    ASSERT_TRUE(server.valid());
    ASSERT_EQ(write(client->get(), "a", 1), 1);
    EXPECT_EQ(Read(server), 'a');
    ASSERT_EQ(write(server.get(), "b", 1), 1);
    EXPECT_EQ(Read(*client), 'b');
    for (const FileDescriptor* fd : {&*client, &server}) {
      EXPECT_NE(fcntl(fd->get(), F_GETFL) & O_NONBLOCK, 0);
      EXPECT_NE(fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
    }
    server.Close();
    EXPECT_EQ(Read(*client), -1);
  }
}

TEST(LocalSocketTest, BuffersAreWideBothWays) {
  FileDescriptor plain(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto buffer = [](const FileDescriptor& fd) {
    int bytes = 0;
    socklen_t size = sizeof(bytes);
    EXPECT_EQ(getsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &bytes, &size), 0);
    return bytes;
  };
  Taken taken;
  auto listener = LocalListener::Listen(Address(), taken.taker());
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto client = ConnectLocally(Address());
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_GT(buffer(*client), buffer(plain));
  EXPECT_EQ(buffer(*client), buffer(taken.Next()));
}

TEST(LocalSocketTest, NobodyThere) {
  EXPECT_EQ(ConnectLocally(Address()).status().code(), absl::StatusCode::kUnavailable);
  Taken taken;
  auto listener = LocalListener::Listen(Address(), taken.taker());
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_EQ(ConnectLocally(absl::StrCat(Address(), "0")).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ConnectLocally(Address()).ok());
  listener->reset();
  EXPECT_EQ(ConnectLocally(Address()).status().code(), absl::StatusCode::kUnavailable);
}

TEST(LocalSocketTest, ANameIsOnesUntilItEnds) {
  Taken first, second;
  auto listener = LocalListener::Listen(Address(), first.taker());
  ASSERT_TRUE(listener.ok()) << listener.status();
  const auto refused = LocalListener::Listen(Address(), second.taker());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr(Address()));
  listener->reset();
  listener = LocalListener::Listen(Address(), second.taker());
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(ConnectLocally(Address()).ok());
  EXPECT_TRUE(second.Next().valid());
}

TEST(LocalSocketTest, AnAddressTooLongForAName) {
  const std::string address = absl::StrCat(std::string(200, 'h'), ":1");
  EXPECT_EQ(ConnectLocally(address).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LocalListener::Listen(address, [](FileDescriptor) {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(LocalSocketTest, BothEndsRefuseAnotherUser) {
  Taken taken;
  {
    auto listener = LocalListener::Listen(Address(), taken.taker());
    ASSERT_TRUE(listener.ok()) << listener.status();
    const auto refused = ConnectLocally(Address(), geteuid() + 1);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr(absl::StrCat("user ", geteuid() + 1)));
    EXPECT_TRUE(taken.Next().valid());
  }
  auto listener = LocalListener::Listen(Address(), taken.taker(), geteuid() + 1);
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto client = ConnectLocally(Address());
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(Read(*client), -1);
}

}  // namespace
}  // namespace descent

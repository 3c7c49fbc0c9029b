#include "common/net/local_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

constexpr int kBacklog = 128;
constexpr int kPauseMs = 100;  // while there is no descriptor for another connection

struct Name {
  sockaddr_un address{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

absl::StatusOr<Name> NameOf(const std::string& address) {
  const std::string text = absl::StrCat("descent/", address);
  Name name;
  name.address.sun_family = AF_UNIX;
  // The zero byte in front makes it abstract.
  if (text.size() + 1 > sizeof(name.address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(address, " is too long for the name of a local socket"));
  }
  std::memcpy(name.address.sun_path + 1, text.data(), text.size());
  name.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  return name;
}

absl::Status Failed(absl::string_view what, const std::string& address) {
  const std::string text = absl::StrCat("local socket of ", address, ": ", what, ": ", std::strerror(errno));
  return errno == EADDRINUSE ? absl::AlreadyExistsError(text) : absl::UnavailableError(text);
}

absl::StatusOr<FileDescriptor> MakeSocket(const std::string& address) {
  FileDescriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Failed("socket", address);
  return fd;
}

absl::Status CheckUser(int fd, uid_t user, const std::string& address) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return Failed("SO_PEERCRED", address);
  if (peer.uid == user) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("local socket of ", address, ": expected user ", user, ", the other end is of user ", peer.uid));
}

// Only what an end sends counts against its buffer. What the system does not grant is no error.
void Widen(int fd) { setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kLocalBufferBytes, sizeof(kLocalBufferBytes)); }

class LocalListenerImpl final : public LocalListener {
 public:
  LocalListenerImpl(FileDescriptor listener, FileDescriptor stop, std::string address, Taker taker, uid_t user)
      : listener_(std::move(listener)),
        stop_(std::move(stop)),
        address_(std::move(address)),
        taker_(std::move(taker)),
        user_(user),
        thread_([this] { Run(); }) {}
  ~LocalListenerImpl() override {
    const uint64_t one = 1;
    DESCENT_CHECK(write(stop_.get(), &one, sizeof(one)) == sizeof(one));
    thread_.join();
  }

 private:
  void Run() {
    bool full = false;
    while (true) {
      pollfd wait[2] = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      const int ready = poll(wait, full ? 1 : 2, full ? kPauseMs : -1);
      if (wait[0].revents != 0) return;
      full = false;
      if (ready < 0 || wait[1].revents == 0) continue;
      FileDescriptor fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd.valid()) {
        full = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
        continue;
      }
      if (!CheckUser(fd.get(), user_, address_).ok()) continue;
      Widen(fd.get());
      taker_(std::move(fd));
    }
  }

  const FileDescriptor listener_, stop_;
  const std::string address_;
  const Taker taker_;
  const uid_t user_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalListener>> LocalListener::Listen(const std::string& address, Taker taker,
                                                                     uid_t user) {
  DESCENT_ASSIGN_OR_RETURN(const Name name, NameOf(address));
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor listener, MakeSocket(address));
  if (bind(listener.get(), name.get(), name.size) != 0) return Failed("bind", address);
  if (listen(listener.get(), kBacklog) != 0) return Failed("listen", address);
  FileDescriptor stop(eventfd(0, EFD_CLOEXEC));
  if (!stop.valid()) return Failed("eventfd", address);
  return std::make_unique<LocalListenerImpl>(std::move(listener), std::move(stop), address, std::move(taker), user);
}

absl::StatusOr<FileDescriptor> ConnectLocally(const std::string& address, uid_t user) {
  DESCENT_ASSIGN_OR_RETURN(const Name name, NameOf(address));
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor fd, MakeSocket(address));
  if (connect(fd.get(), name.get(), name.size) != 0) return Failed("connect", address);
  DESCENT_RETURN_IF_ERROR(CheckUser(fd.get(), user, address));
  Widen(fd.get());
  return fd;
}

}  // namespace descent

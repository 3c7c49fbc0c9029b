#include "tests/bench/raw_stream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>

#include "common/base/check.h"
#include "common/net/local_socket.h"

namespace descent::bench {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

struct Header {
  uint64_t up, down;
};

void WriteAll(int fd, const void* data, size_t size) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = write(fd, from, std::min(size, kChunk));
    DESCENT_CHECK(n > 0);
    from += n;
    size -= static_cast<size_t>(n);
  }
}
bool ReadAll(int fd, void* data, size_t size) {
  char* to = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = read(fd, to, std::min(size, kChunk));
    if (n <= 0) return false;
    to += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

// Writes `up` bytes of `out` and reads `down` bytes, whichever the socket takes or gives, on one thread; on_read sees
// every run of whole floats that has come. ring: `in` is one chunk, used again and again.
template <typename F>
void Duplex(int fd, const char* out, size_t up, char* in, size_t down, bool ring, F&& on_read) {
  size_t sent = 0, got = 0, seen = 0;
  while (sent < up || got < down) {
    pollfd ready{fd, static_cast<short>((got < down ? POLLIN : 0) | (sent < up ? POLLOUT : 0)), 0};
    DESCENT_CHECK(poll(&ready, 1, -1) > 0);
    if ((ready.revents & POLLIN) != 0) {
      const ssize_t n =
          recv(fd, in + (ring ? got % kChunk : got), std::min(down - got, kChunk - got % kChunk), MSG_DONTWAIT);
      DESCENT_CHECK(n > 0);
      got += static_cast<size_t>(n);
      on_read(seen, got / sizeof(float) * sizeof(float));
      seen = got / sizeof(float) * sizeof(float);
    }
    if ((ready.revents & POLLOUT) != 0) {
      const ssize_t n = send(fd, out + sent, std::min(up - sent, kChunk), MSG_DONTWAIT);
      DESCENT_CHECK(n > 0);
      sent += static_cast<size_t>(n);
    }
  }
}

void Serve(int fd) {
  std::vector<float> w, g(kChunk / sizeof(float));
  Header header;
  while (ReadAll(fd, &header, sizeof(header))) {
    w.resize(std::max(w.size(), static_cast<size_t>(std::max(header.up, header.down)) / sizeof(float)), 1.0f);
    Duplex(fd, reinterpret_cast<const char*>(w.data()), header.down, reinterpret_cast<char*>(g.data()), header.up, true,
           [&](size_t begin, size_t end) {
             float* to = w.data() + begin / sizeof(float);
             const float* from = g.data() + begin % kChunk / sizeof(float);
             for (size_t i = 0; i < (end - begin) / sizeof(float); ++i) to[i] += 1e-3f * from[i];
           });
    const char done = 1;
    WriteAll(fd, &done, 1);
  }
}

struct Address {
  union {
    sockaddr_in tcp{};
    sockaddr_un local;
  };
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(this); }
};

// Of this process, as one of ports.
uint16_t UnixNumber() { return static_cast<uint16_t>(getpid()); }

// port 0: for the server.
int Open(RawKind kind, uint16_t port, Address* address) {
  if (kind == RawKind::kTcp) {
    address->tcp.sin_family = AF_INET;
    address->tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address->tcp.sin_port = htons(port);
    address->size = sizeof(address->tcp);
  } else {
    address->local = {};
    address->local.sun_family = AF_UNIX;
    const int length = std::snprintf(address->local.sun_path + 1, sizeof(address->local.sun_path) - 1,
                                     "descent-wire-bench/%d", port == 0 ? UnixNumber() : port);
    address->size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  }
  const int fd = socket(kind == RawKind::kTcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  DESCENT_CHECK(fd >= 0);
  return fd;
}

void Tune(RawKind kind, int fd) {
  const int one = 1;
  if (kind == RawKind::kTcp) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  } else {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kLocalBufferBytes, sizeof(kLocalBufferBytes));
  }
}

}  // namespace

void ServeRaw(RawKind kind) {
  Address address;
  const int listener = Open(kind, 0, &address);
  DESCENT_CHECK(bind(listener, address.get(), address.size) == 0);
  DESCENT_CHECK(listen(listener, 1) == 0);
  DESCENT_CHECK(getsockname(listener, address.get(), &address.size) == 0);
  std::printf("%d\n", kind == RawKind::kTcp ? ntohs(address.tcp.sin_port) : UnixNumber());
  std::fflush(stdout);
  while (true) {
    pollfd ready[2] = {{listener, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    DESCENT_CHECK(poll(ready, 2, -1) > 0);
    if (ready[1].revents != 0) return;
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    DESCENT_CHECK(fd >= 0);
    Tune(kind, fd);
    Serve(fd);
    close(fd);
  }
}

RawClient::RawClient(RawKind kind, uint16_t port) {
  Address address;
  fd_ = Open(kind, port, &address);
  DESCENT_CHECK(connect(fd_, address.get(), address.size) == 0);
  Tune(kind, fd_);
}
RawClient::~RawClient() { close(fd_); }

void RawClient::Exchange(size_t up, size_t down) {
  out_.resize(std::max(out_.size(), up / sizeof(float)), 1.0f);
  in_.resize(std::max(in_.size(), down / sizeof(float)));
  const Header header{up, down};
  WriteAll(fd_, &header, sizeof(header));
  Duplex(fd_, reinterpret_cast<const char*>(out_.data()), up, reinterpret_cast<char*>(in_.data()), down, false,
         [](size_t, size_t) {});
  char done;
  DESCENT_CHECK(ReadAll(fd_, &done, 1));
}

}  // namespace descent::bench

#include "tests/bench/raw_tcp.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "common/base/check.h"

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

}  // namespace

void ServeRawTcp() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  DESCENT_CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  DESCENT_CHECK(listen(listener, 1) == 0);
  socklen_t size = sizeof(address);
  DESCENT_CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  while (true) {
    pollfd ready[2] = {{listener, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    DESCENT_CHECK(poll(ready, 2, -1) > 0);
    if (ready[1].revents != 0) return;
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    DESCENT_CHECK(fd >= 0);
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    Serve(fd);
    close(fd);
  }
}

RawTcpClient::RawTcpClient(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  DESCENT_CHECK(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  const int one = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}
RawTcpClient::~RawTcpClient() { close(fd_); }

void RawTcpClient::Exchange(size_t up, size_t down) {
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

#include "tests/bench/raw_tcp.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <thread>

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

void Serve(int fd) {
  std::vector<float> w, g(kChunk / sizeof(float));
  Header header;
  while (ReadAll(fd, &header, sizeof(header))) {
    w.resize(std::max(w.size(), static_cast<size_t>(std::max(header.up, header.down)) / sizeof(float)), 1.0f);
    std::thread writer;
    if (header.down > 0 && header.up > 0) {
      writer = std::thread([&] { WriteAll(fd, w.data(), header.down); });
    }
    for (size_t at = 0; at < header.up; at += kChunk) {
      const size_t n = std::min<size_t>(kChunk, header.up - at);
      DESCENT_CHECK(ReadAll(fd, g.data(), n));
      float* to = w.data() + at / sizeof(float);
      for (size_t i = 0; i < n / sizeof(float); ++i) to[i] += 1e-3f * g[i];
    }
    if (writer.joinable()) {
      writer.join();
    } else {
      WriteAll(fd, w.data(), header.down);
    }
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
  const auto send = [&] {
    WriteAll(fd_, &header, sizeof(header));
    WriteAll(fd_, out_.data(), up);
  };
  char done;
  if (up > 0 && down > 0 && up + down > kChunk / 4) {
    std::thread writer(send);
    DESCENT_CHECK(ReadAll(fd_, in_.data(), down));
    writer.join();
  } else {
    send();  // fits into the socket's buffers, or nothing comes back
    DESCENT_CHECK(ReadAll(fd_, in_.data(), down));
  }
  DESCENT_CHECK(ReadAll(fd_, &done, 1));
}

}  // namespace descent::bench

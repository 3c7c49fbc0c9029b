// The yardstick of wire_bench: the same bytes over a plain socket, full duplex, written and read by the megabyte, warm
// memory, the server doing w += a * g on what it receives. TCP on the loopback with default buffers, or a Unix socket
// with those of common/net/local_socket.h. POSIX only; ends the process on any error.
#ifndef DESCENT_TESTS_BENCH_RAW_STREAM_H_
#define DESCENT_TESTS_BENCH_RAW_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace descent::bench {

enum class RawKind { kTcp, kUnix };

// The server: prints its port on standard output (of a Unix socket: a number in its name), serves one client at a time
// until standard input ends.
void ServeRaw(RawKind kind);

class RawClient {
 public:
  RawClient(RawKind kind, uint16_t port);
  ~RawClient();
  // Sends `up` bytes and receives `down`, both at once; returns when all has arrived (of `up`: when the server has
  // applied it). Multiples of 4.
  void Exchange(size_t up, size_t down);

 private:
  int fd_;
  std::vector<float> out_, in_;
};

}  // namespace descent::bench

#endif  // DESCENT_TESTS_BENCH_RAW_STREAM_H_

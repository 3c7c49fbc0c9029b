// The yardstick of wire_bench: the same bytes over a plain TCP connection on the loopback, full duplex, written and
// read by the megabyte, default socket buffers, warm memory, the server doing w += a * g on what it receives. POSIX
// only; ends the process on any error.
#ifndef DESCENT_TESTS_BENCH_RAW_TCP_H_
#define DESCENT_TESTS_BENCH_RAW_TCP_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace descent::bench {

// The server: prints its port on standard output, serves one client at a time until standard input ends.
void ServeRawTcp();

class RawTcpClient {
 public:
  explicit RawTcpClient(uint16_t port);
  ~RawTcpClient();
  // Sends `up` bytes and receives `down`, both at once; returns when all has arrived (of `up`: when the server has
  // applied it). Multiples of 4.
  void Exchange(size_t up, size_t down);

 private:
  int fd_;
  std::vector<float> out_, in_;
};

}  // namespace descent::bench

#endif  // DESCENT_TESTS_BENCH_RAW_TCP_H_

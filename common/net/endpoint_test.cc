#include "common/net/endpoint.h"

#include <gtest/gtest.h>

namespace descent {
namespace {

TEST(EndpointTest, Reads) {
  EXPECT_EQ(*ParseEndpoint("a.example:7000"), (Endpoint{"a.example", 7000}));
  EXPECT_EQ(*ParseEndpoint("[::1]:7000"), (Endpoint{"::1", 7000}));
  EXPECT_EQ(*ParseEndpoint("::1", {"", 7}), (Endpoint{"::1", 7}));
  EXPECT_EQ(*ParseEndpoint("[fe80::2]", {"", 7}), (Endpoint{"fe80::2", 7}));
  EXPECT_EQ(*ParseEndpoint(":9", {"0.0.0.0", 7}), (Endpoint{"0.0.0.0", 9}));
  EXPECT_EQ(*ParseEndpoint("", {"0.0.0.0", 7}), (Endpoint{"0.0.0.0", 7}));
  EXPECT_EQ(*ParseEndpoint("host", {"", 7000}), (Endpoint{"host", 7000}));
  EXPECT_EQ(*ParseEndpoint("host:0"), (Endpoint{"host", 0}));
}

TEST(EndpointTest, Refuses) {
  for (absl::string_view text : {"", ":7000", "host:", "host:port", "host:65536", "host:-1", "host:+1", "host: 1",
                                 "host:1x", "[::1", "[::1]7000", "[host]:1", "http://host:1", "a b:1", "host:123456"}) {
    const auto parsed = ParseEndpoint(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(parsed.status().message().find(text), absl::string_view::npos) << text;
  }
  EXPECT_EQ(ParseEndpoint("host:port").status().message(),
            "address \"host:port\": the port is not in 0..65535; expected host:port");
}

TEST(EndpointTest, WritesWhatItReads) {
  for (absl::string_view text : {"a.example:7000", "[::1]:7000", "127.0.0.1:0"}) {
    EXPECT_EQ(ParseEndpoint(text)->ToString(), text);
  }
}

}  // namespace
}  // namespace descent

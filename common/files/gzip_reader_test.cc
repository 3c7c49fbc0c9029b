#include "common/files/gzip_reader.h"

#include <zlib.h>

#include <cstdlib>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/files/crc32c.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

std::string Gzip(const std::string& text) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// Not compressible, so that cuts fall into data and not into a header.
std::string Text(size_t bytes) {
  std::string text;
  for (uint64_t state = 88172645463325252; text.size() < bytes; text.push_back(static_cast<char>(state))) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
  }
  return text;
}

class GzipReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = absl::StrCat(::testing::TempDir(), "/gzip_XXXXXX");
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }

  absl::StatusOr<std::string> ReadAll(const std::string& on_disk, size_t step = 1 << 16) {
    const std::string path = absl::StrCat(folder_, "/file");
    EXPECT_TRUE(WriteFileAtomically(path, on_disk).ok());
    auto reader = GzipReader::Open(path, "file");
    if (!reader.ok()) return reader.status();
    std::string all, part(step, '\0');
    while (true) {
      auto n = (*reader)->Read(part.data(), step);
      if (!n.ok()) return n.status();
      if (*n == 0) break;
      all.append(part, 0, *n);
    }
    EXPECT_EQ((*reader)->disk_bytes(), on_disk.size());
    EXPECT_EQ((*reader)->disk_crc32c(), Crc32c(on_disk));
    return all;
  }
  std::string folder_;
};

TEST_F(GzipReaderTest, PlainAndGzipReadTheSame) {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{262144}, size_t{700001}}) {
    const std::string text = Text(bytes);
    for (size_t step : {size_t{997}, size_t{1} << 20}) {
      EXPECT_EQ(*ReadAll(text, step), text);
      EXPECT_EQ(*ReadAll(Gzip(text), step), text);
    }
  }
}

TEST_F(GzipReaderTest, MembersAndPaddingAreOneStream) {
  EXPECT_EQ(*ReadAll(absl::StrCat(Gzip("one,"), Gzip(""), Gzip("two"), std::string(512, '\0'))), "one,two");
}

TEST_F(GzipReaderTest, TruncationIsDataLossAtAnyCut) {
  const std::string packed = Gzip(Text(300000));
  for (size_t cut : {size_t{3}, size_t{1000}, size_t{262144}, packed.size() - 8, packed.size() - 1}) {
    const absl::Status status = ReadAll(packed.substr(0, cut)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(),
              absl::StrCat("file: truncated: the file ends at byte ", cut, ", before the gzip stream does"));
  }
}

TEST_F(GzipReaderTest, DamageIsDataLoss) {
  std::string packed = Gzip(std::string(3000, 'a'));
  packed[packed.size() - 6] ^= 1;  // in the checksum of the trailer
  absl::Status status = ReadAll(packed).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(absl::StartsWith(status.message(), "file: damaged gzip data near byte ")) << status;
  EXPECT_TRUE(absl::EndsWith(status.message(), ": incorrect data check")) << status;

  packed = Gzip("ab");
  status = ReadAll(absl::StrCat(packed, "rest")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(),
            absl::StrCat("file: damaged: bytes that are not gzip at byte ", packed.size(), ", behind the gzip stream"));
}

TEST_F(GzipReaderTest, MissingFileIsNamed) {
  const absl::Status status = GzipReader::Open("/no/such", "such").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "such: no such file (looked for /no/such)");
}

}  // namespace
}  // namespace descent

#include "cli/predict_data.h"

#include <unistd.h>

#include <fstream>
#include <string>

#include "common/files/file.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

class MakeUpLabelsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = TemporaryFolder::Make();
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_ = *std::move(folder);
  }
  std::string File(const std::string& text) {
    const std::string path = folder_->path() + "/data";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  static std::string Read(const std::string& path) { return ReadFile(path).value_or("unreadable"); }

  std::unique_ptr<TemporaryFolder> folder_;
  v1::Dataset spec_;
};

TEST_F(MakeUpLabelsTest, Libsvm) {
  spec_.mutable_libsvm()->add_path(File("1:1 3:0.5\r\n# note\n\n2:1"));
  ASSERT_TRUE(MakeUpLabels(folder_->path(), LabelKind::kBinary, &spec_).ok());
  EXPECT_EQ(Read(spec_.libsvm().path(0)), "0 1:1 3:0.5\n# note\n0 \n0 2:1\n") << "a row of zeros has no entries";
}

TEST_F(MakeUpLabelsTest, CsvWithHeaderAndLineEndsInQuotes) {
  v1::Csv* csv = spec_.mutable_csv();
  csv->add_path(File("a,b\n1,\"2\n\"\n3,4\n"));
  csv->set_header(true);
  csv->set_label("y");
  csv->set_delimiter(",");
  ASSERT_TRUE(MakeUpLabels(folder_->path(), LabelKind::kClass, &spec_).ok());
  EXPECT_EQ(Read(csv->path(0)), "a,b,descent_label\n1,\"2\n\",0\n3,4,0\n");
  EXPECT_EQ(csv->label(), "descent_label");
}

TEST_F(MakeUpLabelsTest, CsvLabelsAreOnesThatTheReaderTakes) {
  v1::Csv* csv = spec_.mutable_csv();
  csv->add_path(File("1;2\n"));
  csv->set_delimiter(";");
  csv->set_label("0");
  (*csv->mutable_label_map())["b \"c\""] = 1;
  (*csv->mutable_label_map())["z"] = 0;
  ASSERT_TRUE(MakeUpLabels(folder_->path(), LabelKind::kClass, &spec_).ok());
  EXPECT_EQ(Read(csv->path(0)), "1;2;\"b \"\"c\"\"\"\n");
  EXPECT_EQ(csv->label(), "");
}

TEST_F(MakeUpLabelsTest, ColumnsLeftOutByNumberAreRefused) {
  v1::Csv* csv = spec_.mutable_csv();
  csv->add_path(File("1,2\n"));
  csv->set_delimiter(",");
  csv->add_ignore("1");
  EXPECT_EQ(MakeUpLabels(folder_->path(), LabelKind::kNumber, &spec_).message(),
            "--no-labels: columns that are left out by number need a header or the labels");
}

TEST_F(MakeUpLabelsTest, Idx) {
  spec_.mutable_idx()->set_images(File(std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x01\x05\x06", 18)));
  ASSERT_TRUE(MakeUpLabels(folder_->path(), LabelKind::kClass, &spec_).ok());
  EXPECT_EQ(Read(spec_.idx().labels()), std::string("\0\0\x08\x01\0\0\0\x02\0\0", 10));
}

TEST(TemporaryFolder, GoesWithItsContents) {
  std::string path;
  {
    auto folder = TemporaryFolder::Make();
    ASSERT_TRUE(folder.ok());
    path = (*folder)->path();
    std::ofstream(path + "/x") << "x";
    EXPECT_EQ(access((path + "/x").c_str(), F_OK), 0);
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace descent

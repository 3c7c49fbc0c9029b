// What data that can't be read look like to whoever gave them: every message whole.
#include <zlib.h>

#include <string>

#include "gtest/gtest.h"
#include "worker/data/data_test_util.h"

namespace descent {
namespace {

class DatasetErrorsTest : public DataTest {
 protected:
  std::string Libsvm(absl::string_view contents) {
    Write("a.svm", contents);
    return Failure("libsvm { path: 'a.svm' features: 9 }");
  }
  std::string Csv(absl::string_view contents, const std::string& more = "header: true") {
    Write("a.csv", contents);
    return Failure(absl::StrCat("csv { path: 'a.csv' ", more, " }"));
  }
  std::string Idx(absl::string_view images, absl::string_view labels) {
    Write("images", images);
    Write("labels", labels);
    return Failure("idx { images: 'images' labels: 'labels' }");
  }
};

TEST_F(DatasetErrorsTest, Files) {
  EXPECT_EQ(Failure("libsvm { path: 'no.svm' features: 1 }"),
            absl::StrCat("NOT_FOUND: no.svm: no such file (looked for ", folder_, "/no.svm)"));
  EXPECT_EQ(Failure("libsvm { path: 'no*.svm' features: 1 }"),
            absl::StrCat("NOT_FOUND: libsvm.path: no file matches 'no*.svm' (looked for ", folder_, "/no*.svm)"));
  EXPECT_EQ(Failure("libsvm { features: 1 }"), "INVALID_ARGUMENT: libsvm.path: no file is given");
  EXPECT_EQ(Failure("libsvm { path: '' features: 1 }"), "INVALID_ARGUMENT: libsvm.path: an empty file name");
  EXPECT_EQ(Failure("csv { path: 'cache' path: '.' }"),
            absl::StrCat("NOT_FOUND: cache: no such file (looked for ", folder_, "/cache)"));
  EXPECT_EQ(Failure("csv { path: '.' }"), "INVALID_ARGUMENT: .: is a folder, expected a file");
  EXPECT_EQ(Failure("idx { images: 'i' }"), "INVALID_ARGUMENT: idx.labels: no file is given");
  EXPECT_EQ(Failure(""), "INVALID_ARGUMENT: a data set needs one of idx, libsvm and csv");
}

TEST_F(DatasetErrorsTest, EmptyFiles) {
  EXPECT_EQ(Libsvm(""), "INVALID_ARGUMENT: a.svm: the file is empty");
  EXPECT_EQ(Libsvm("# nothing\n\n"), "INVALID_ARGUMENT: a.svm: the file has no examples");
  EXPECT_EQ(Csv(""), "INVALID_ARGUMENT: a.csv: the file is empty");
  EXPECT_EQ(Csv("x,y\n"), "INVALID_ARGUMENT: a.csv: the file has no examples");
  EXPECT_EQ(Idx("", ""), "INVALID_ARGUMENT: images: the file is empty");
}

TEST_F(DatasetErrorsTest, TruncatedAndDamagedGzip) {
  std::string text;
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&text, i % 7, " 1:", i * 7919 % 10007, "\n");
  gzFile file = gzopen(absl::StrCat(folder_, "/whole").c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  std::string packed = *ReadFile(absl::StrCat(folder_, "/whole"));
  Write("a.svm.gz", packed.substr(0, 5000));
  EXPECT_EQ(Failure("libsvm { path: 'a.svm.gz' features: 9 }"),
            "DATA_LOSS: a.svm.gz: truncated: the file ends at byte 5000, before the gzip stream does");
  packed[packed.size() - 5] ^= 1;
  Write("a.svm.gz", packed);
  EXPECT_EQ(
      Failure("libsvm { path: 'a.svm.gz' features: 9 }"),
      absl::StrCat("DATA_LOSS: a.svm.gz: damaged gzip data near byte ", packed.size() - 4, ": incorrect data check"));
  // Nothing is left of what could be read.
  EXPECT_TRUE(ListFolder(absl::StrCat(folder_, "/cache/sets"))->empty());
}

TEST_F(DatasetErrorsTest, LibsvmEntries) {
  EXPECT_EQ(Libsvm("1 1:1\n1 2:x\n"), "INVALID_ARGUMENT: a.svm:2: value 'x' of index 2 is not a finite number");
  EXPECT_EQ(Libsvm("1 2:1.5.2\n"), "INVALID_ARGUMENT: a.svm:1: value '1.5.2' of index 2 is not a finite number");
  EXPECT_EQ(Libsvm("1 2:\n"), "INVALID_ARGUMENT: a.svm:1: value '' of index 2 is not a finite number");
  EXPECT_EQ(Libsvm("1 2:nan\n"), "INVALID_ARGUMENT: a.svm:1: value 'nan' of index 2 is not a finite number");
  EXPECT_EQ(Libsvm("1 2:1e99\n"), "INVALID_ARGUMENT: a.svm:1: value '1e99' of index 2 is not a finite number");
  EXPECT_EQ(Libsvm("1 2:+-1\n"), "INVALID_ARGUMENT: a.svm:1: value '+-1' of index 2 is not a finite number");
  EXPECT_EQ(Libsvm("1 2\n"), "INVALID_ARGUMENT: a.svm:1: '2' is not index:value");
  EXPECT_EQ(Libsvm("1 -2:1\n"), "INVALID_ARGUMENT: a.svm:1: index '-2' is not a whole number below 2^64");
  EXPECT_EQ(Libsvm("1 18446744073709551616:1\n"),
            "INVALID_ARGUMENT: a.svm:1: index '18446744073709551616' is not a whole number below 2^64");
  EXPECT_EQ(Libsvm("1 :1\n"), "INVALID_ARGUMENT: a.svm:1: index '' is not a whole number below 2^64");
  EXPECT_EQ(Libsvm("\n1 2:1 2:1\r\n"), "INVALID_ARGUMENT: a.svm:2: index 2 is there twice");
  EXPECT_EQ(Libsvm("1 3:1 2:1"), "INVALID_ARGUMENT: a.svm:1: index 2 after 3: expected ascending");
  EXPECT_EQ(Libsvm("1 0:1"),
            "INVALID_ARGUMENT: a.svm:1: index 0, but indices count from 1 unless libsvm.zero_based is set");
  EXPECT_EQ(Libsvm("1 10:1"), "INVALID_ARGUMENT: a.svm:1: index 10 is beyond libsvm.features: 9, whose last is 9");
  EXPECT_EQ(Libsvm(absl::StrCat("1 ", std::string(99, '\x01'))), absl::StrCat(
                                                                     "INVALID_ARGUMENT: a.svm:1: '",
                                                                     [] {
                                                                       std::string shown;
                                                                       for (int i = 0; i < 40; ++i) shown += "\\x01";
                                                                       return shown;
                                                                     }(),
                                                                     "...' is not index:value"));
}

TEST_F(DatasetErrorsTest, LibsvmNeedsFeatures) {
  EXPECT_EQ(Failure("libsvm { path: 'a' }"),
            "INVALID_ARGUMENT: libsvm.features: 0; a model without a sparse table needs the number of features");
  EXPECT_EQ(Failure("libsvm { path: 'a' features: 4294967296 }"),
            "INVALID_ARGUMENT: libsvm.features: 4294967296; without a sparse table at most 4294967295");
  options_.keys = true;
  Write("a.csv", "1,2\n");
  EXPECT_EQ(Failure("csv { path: 'a.csv' }"), "INVALID_ARGUMENT: a model with a sparse table needs libsvm data");
}

TEST_F(DatasetErrorsTest, Labels) {
  EXPECT_EQ(Libsvm("abc 1:1\n"), "INVALID_ARGUMENT: a.svm:1: label 'abc' is not a finite number");
  EXPECT_EQ(Libsvm("1e39 1:1\n"), "INVALID_ARGUMENT: a.svm:1: label 1e39: expected a finite number");
  options_.labels = LabelKind::kBinary;
  EXPECT_EQ(Libsvm("2 1:1\n"), "INVALID_ARGUMENT: a.svm:1: label 2: expected -1 or +1, or 0 or 1");
  EXPECT_EQ(Libsvm("1\n0\n-1\n"), "INVALID_ARGUMENT: a.svm:3: label -1: expected 0 or 1, as earlier labels are");
  EXPECT_EQ(Libsvm("-1\n0\n"), "INVALID_ARGUMENT: a.svm:2: label 0: expected -1 or +1, as earlier labels are");
  options_.labels = LabelKind::kClass;
  options_.classes = 3;
  EXPECT_EQ(Libsvm("2 1:1\n3 1:1\n"), "INVALID_ARGUMENT: a.svm:2: label 3: expected a class from 0 to 2");
  EXPECT_EQ(Libsvm("-1 1:1\n"), "INVALID_ARGUMENT: a.svm:1: label -1: expected a class from 0 to 2");
  EXPECT_EQ(Libsvm("0.5 1:1\n"), "INVALID_ARGUMENT: a.svm:1: label 0.5: expected a class from 0 to 2");
  EXPECT_EQ(Csv("x,y\n1,7\n"), "INVALID_ARGUMENT: a.csv:2: column 'y': label 7: expected a class from 0 to 2");
  EXPECT_EQ(Csv("x,y\n1,cat\n", "header: true label_map { key: 'dog' value: 1 } label_map { key: 'emu' value: 0 }"),
            "INVALID_ARGUMENT: a.csv:2: column 'y': label 'cat' is not in csv.label_map: dog, emu");
  EXPECT_EQ(Idx(absl::string_view("\0\0\x08\x02\0\0\0\x01\0\0\0\x01\x05", 13),
                absl::string_view("\0\0\x08\x01\0\0\0\x01\x03", 9)),
            "INVALID_ARGUMENT: labels: record 0: label 3: expected a class from 0 to 2");
  EXPECT_EQ(Csv("x,y\n1,7\n", "log_label: true"),
            "INVALID_ARGUMENT: csv.log_label: only for a model whose labels are numbers");
}

TEST_F(DatasetErrorsTest, CsvCells) {
  EXPECT_EQ(Csv("a,b,y\n1,2,3\n1,2\n"), "INVALID_ARGUMENT: a.csv:3: 2 columns, but the header of a.csv has 3");
  EXPECT_EQ(Csv("1,2,3\n\n1,2,3,4\n", ""), "INVALID_ARGUMENT: a.csv:3: 4 columns, but the first row of a.csv has 3");
  EXPECT_EQ(Csv("a,b,y\n1,,3\n"), "INVALID_ARGUMENT: a.csv:2: column 'b' is empty, expected a number");
  EXPECT_EQ(Csv("a,b,y\n1,2,\n"), "INVALID_ARGUMENT: a.csv:2: column 'y' is empty, expected a number");
  EXPECT_EQ(Csv("a,cut,y\n1,Ideal,3\n"),
            "INVALID_ARGUMENT: a.csv:2: column 'cut': 'Ideal' is not a finite number; a column of text is for "
            "features { one_hot: \"cut\" }, or is left out with ignore: \"cut\"");
  EXPECT_EQ(Csv("1,Ideal,3\n", ""),
            "INVALID_ARGUMENT: a.csv:1: column 1: 'Ideal' is not a finite number; a column of text is for "
            "features { one_hot: \"1\" }, or is left out with ignore: \"1\"");
  EXPECT_EQ(Csv("a,y\n1,dog\n"),
            "INVALID_ARGUMENT: a.csv:2: column 'y': 'dog' is not a finite number; names of classes need csv.label_map");
  EXPECT_EQ(Csv("a,y\n\"1\n\n2\",1\n3,x\n", "header: true ignore: 'a' label: 'a'"),
            "INVALID_ARGUMENT: csv.ignore: column 'a' is the label");
  // A record is named by the line it begins in.
  EXPECT_EQ(Csv("t,a,y\n\"1\n\n2\",1,1\n\"3\n\",4,x\n", "header: true ignore: 't'"),
            "INVALID_ARGUMENT: a.csv:5: column 'y': 'x' is not a finite number; names of classes need csv.label_map");
  EXPECT_EQ(Csv("a,y\n1,0\n", "header: true log_label: true"),
            "INVALID_ARGUMENT: a.csv:2: column 'y': label 0: expected a number above 0, because of csv.log_label");
}

TEST_F(DatasetErrorsTest, CsvQuotes) {
  EXPECT_EQ(Csv("a,y\n1,\"2\n3,4\n"), "INVALID_ARGUMENT: a.csv:2: the quotes of field 2 never end");
  EXPECT_EQ(Csv("a,y\n\"1\"2,3\n"), "INVALID_ARGUMENT: a.csv:2: text behind the quotes of field 1");
}

TEST_F(DatasetErrorsTest, CsvColumns) {
  EXPECT_EQ(Csv("a,b\n1,2\n", "header: true label: 'c'"),
            "INVALID_ARGUMENT: csv.label: a.csv has no column 'c'; its header is a, b");
  EXPECT_EQ(Csv("a,b\n1,2\n", "header: true ignore: 'c'"),
            "INVALID_ARGUMENT: csv.ignore: a.csv has no column 'c'; its header is a, b");
  EXPECT_EQ(Csv("a,b,a\n1,2,3\n", "header: true label: 'a'"), "INVALID_ARGUMENT: csv.label: a.csv has 2 columns 'a'");
  EXPECT_EQ(Csv("1,2\n", "label: '2'"), "INVALID_ARGUMENT: csv.label: there is no column 2; a.csv has columns 0 to 1");
  EXPECT_EQ(Csv("1,2\n", "label: 'price'"),
            "INVALID_ARGUMENT: csv.label: 'price' is not a column's number, and csv.header is not set");
  EXPECT_EQ(Csv("a,b\n1,2\n", "header: true ignore: 'a'"), "INVALID_ARGUMENT: a.csv: no column is left for features");
  EXPECT_EQ(Csv("1,2\n", "delimiter: ',,'"),
            "INVALID_ARGUMENT: csv.delimiter: expected one character, not a quote and not a line end");
  Write("b.csv", "a,c\n1,2\n");
  EXPECT_EQ(Csv("a,b\n1,2\n", "path: 'b.csv' header: true"),
            "INVALID_ARGUMENT: b.csv:1: header column 1 is 'c', but 'b' in a.csv");
  Write("b.csv", "a,b,c\n1,2,3\n");
  EXPECT_EQ(Csv("a,b\n1,2\n", "path: 'b.csv' header: true"),
            "INVALID_ARGUMENT: b.csv:1: 3 columns, but the header of a.csv has 2");
}

TEST_F(DatasetErrorsTest, IdxFiles) {
  const absl::string_view images("\0\0\x08\x02\0\0\0\x02\0\0\0\x02\x01\x02\x03\x04", 16);
  const absl::string_view labels("\0\0\x08\x01\0\0\0\x02\x01\x00", 10);
  EXPECT_EQ(Idx(images, labels), "opened");
  EXPECT_EQ(
      Idx(absl::string_view("\0\0\x0d\x02\0\0\0\x02", 8), labels),
      "INVALID_ARGUMENT: images: not an IDX file of unsigned bytes: it begins with 00 00 0d 02, expected 00 00 08 "
      "and the number of dimensions");
  EXPECT_EQ(Idx("P5", labels),
            "INVALID_ARGUMENT: images: not an IDX file of unsigned bytes: it begins with 50 35, expected 00 00 08 and "
            "the number of dimensions");
  EXPECT_EQ(Idx(images.substr(0, 9), labels), "DATA_LOSS: images: truncated: the file ends in its header");
  EXPECT_EQ(Idx(images.substr(0, 15), labels),
            "DATA_LOSS: images: truncated: its header says 2 records of 2 bytes, the data end in record 1");
  EXPECT_EQ(Idx(images, labels.substr(0, 9)),
            "DATA_LOSS: labels: truncated: its header says 2 records of 1 bytes, the data end in record 1");
  EXPECT_EQ(Idx(absl::StrCat(images, "x"), labels),
            "INVALID_ARGUMENT: images: data go on behind the 2 records its header says");
  EXPECT_EQ(Idx(images, absl::StrCat(labels, "x")),
            "INVALID_ARGUMENT: labels: data go on behind the 2 records its header says");
  EXPECT_EQ(Idx(images, absl::string_view("\0\0\x08\x01\0\0\0\x03\x01\x00\x01", 11)),
            "INVALID_ARGUMENT: images has 2 images, but labels has 3 labels");
  EXPECT_EQ(Idx(labels, labels), "INVALID_ARGUMENT: images: 1 dimension, expected images of 2 or more");
  EXPECT_EQ(Idx(images, images), "INVALID_ARGUMENT: labels: 2 dimensions, expected labels of 1");
  EXPECT_EQ(Idx(absl::string_view("\0\0\x08\x02\0\0\0\0\0\0\0\x02", 12), absl::string_view("\0\0\x08\x01\0\0\0\0", 8)),
            "INVALID_ARGUMENT: images: the file has no images");
  EXPECT_EQ(Idx(absl::string_view("\0\0\x08\x03\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff", 16), labels),
            "INVALID_ARGUMENT: images: an image of 4294967295 x 4294967295 bytes: expected 1 to 4294967295 bytes");
}

}  // namespace
}  // namespace descent

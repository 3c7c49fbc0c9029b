"""What is wrong is said, by name, with the right exit status; nothing is left running."""
import gzip
import json
import socket

from harness import SOURCE, ClusterTest, main, write_csv, write_idx, write_libsvm

CSV_JOB = """
name: "bad"
ranks: 1
batch_size: 4
epochs: 1
data {{ train {{ csv {{ path: "{path}" label: "y" header: true }} }} }}
model {{ logistic {{}} }}
learning_rate {{ constant: 0.1 }}
"""
SVM_JOB = """
name: "bad"
ranks: 1
batch_size: 4
epochs: 1
data {{ train {{ libsvm {{ path: "{path}" features: 10 }} }} }}
model {{ logistic {{}} }}
learning_rate {{ constant: 0.1 }}
"""
IDX_JOB = """
name: "bad"
ranks: 1
batch_size: 4
epochs: 1
data { train { idx { images: "images" labels: "labels" } } }
model { softmax { classes: 3 } }
learning_rate { constant: 0.1 }
"""


class BadInputTest(ClusterTest):
    def fails(self, job, status, *patterns, **kwargs):
        result = self.descent_run(job, **kwargs)
        self.assertEqual(result.status, status, result.output)
        for pattern in patterns:
            self.assertRegex(result.output, pattern)
        return result

    def says(self, job, sentence):
        """Status 1, and the last line gives the worker and this sentence as the first cause."""
        result = self.descent_run(job)
        self.assertEqual(result.status, 1, result.output)
        last = result.output.splitlines()[-1]
        self.assertRegex(last, r"^first cause: worker on host \S+ \(pid \d+\): ")
        self.assertIn("): " + sentence, last)

    def svm(self, content, sentence):
        (self.folder / "x.svm").write_bytes(content)
        self.says(self.job(SVM_JOB.format(path="x.svm")), sentence)

    def csv(self, content, sentence):
        (self.folder / "x.csv").write_text(content)
        self.says(self.job(CSV_JOB.format(path="x.csv")), sentence)

    def test_truncated_gzip(self):
        write_libsvm(self.folder / "x.svm.gz", 500, 40, 4)
        whole = (self.folder / "x.svm.gz").read_bytes()
        half = len(whole) // 2
        (self.folder / "x.svm.gz").write_bytes(whole[:half])
        self.says(self.job(SVM_JOB.format(path="x.svm.gz").replace("features: 10", "features: 40")),
                  f"x.svm.gz: truncated: the file ends at byte {half}, before the gzip stream does")

    def test_libsvm(self):
        self.svm(b"1 1:2 3:x\n", "x.svm:1: value 'x' of index 3 is not a finite number")
        self.svm(b"1 1:2\n0 3:1 3:2\n", "x.svm:2: index 3 is there twice")
        self.svm(b"1 5:2 2:1\n", "x.svm:1: index 2 after 5: expected ascending")
        self.svm(b"1 11:2\n", "x.svm:1: index 11 is beyond libsvm.features: 10, whose last is 10")
        self.svm(b"7 1:2\n", "x.svm:1: label 7: expected -1 or +1, or 0 or 1")
        self.svm(b"", "x.svm: the file is empty")

    def test_libsvm_crlf_is_read(self):
        (self.folder / "x.svm").write_bytes(b"+1 1:2 3:1\r\n-1 2:1\r\n")
        self.succeed(self.job(SVM_JOB.format(path="x.svm")))

    def test_csv(self):
        self.csv("a,b,y\n1,2,0\n1,2\n", "x.csv:3: 2 columns, but the header of x.csv has 3")
        self.csv("a,b,y\n1,2,0\n1,2,0,4\n", "x.csv:3: 4 columns, but the header of x.csv has 3")
        self.csv('a,b,y\n1,"2,0\n', "x.csv:2: the quotes of field 2 never end")
        self.csv("a,b,y\n1,red,0\n", "x.csv:2: column 'b': 'red' is not a finite number; a column of text is for features { one_hot")
        self.csv("a,b,y\n1,,0\n", "x.csv:2: column 'b' is empty, expected a number")
        self.csv("a,b,z\n1,2,0\n", "csv.label: x.csv has no column 'y'; its header is a, b, z")
        self.csv("a,b,y\n1,2,7\n", "x.csv:2: column 'y': label 7: expected -1 or +1, or 0 or 1")
        self.csv("", "x.csv: the file is empty")

    def test_csv_with_quotes_is_read(self):
        (self.folder / "x.csv").write_text('"a","b ""c""","y"\r\n"1","2","0"\r\n3,4,1\r\n')
        self.succeed(self.job(CSV_JOB.format(path="x.csv")))

    def test_idx(self):
        job = self.job(IDX_JOB)
        good = ((4, 2, 2), [0] * 16)
        write_idx(self.folder / "images", *good)
        write_idx(self.folder / "labels", (5,), [0, 1, 2, 0, 1])
        self.says(job, "images has 4 images, but labels has 5 labels")
        write_idx(self.folder / "labels", (4,), [0, 1, 2, 3])
        self.says(job, "labels: record 3: label 3: expected a class from 0 to 2")
        write_idx(self.folder / "labels", (4,), [0, 1, 2, 0])
        (self.folder / "images").write_bytes(b"\x12\x34\x08\x03" + b"\0" * 40)
        self.says(job, "images: not an IDX file of unsigned bytes: it begins with 12 34 08 03, expected 00 00 08")
        write_idx(self.folder / "images", (4, 2, 2), [0] * 9)
        self.says(job, "images: truncated: its header says 4 records of 4 bytes, the data end in record 2")

    def test_job_file(self):
        self.fails(self.job(CSV_JOB.format(path="x.csv").replace("batch_size", "batchsize")), 2,
                   r"job\.textproto:4:1", "batchsize", "batch_size")
        self.fails(self.folder / "none.textproto", 2, r"none\.textproto")
        self.fails(self.job(CSV_JOB.format(path="x.csv") + "l2: -1\n"), 2, "l2", "-1")
        self.fails(self.job(CSV_JOB.format(path="x.csv")), 2, "optimizr", "optimizer", sets=["optimizr.sgd="])

    def test_missing_data(self):
        self.says(self.job(CSV_JOB.format(path="nowhere.csv")),
                  f"nowhere.csv: no such file (looked for {self.folder}/nowhere.csv)")

    def test_port_taken(self):
        write_csv(self.folder / "train.csv", 20, 2)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            result = self.command("descent_server", "--job", self.job(CSV_JOB.format(path="train.csv")), "--bind", address,
                                  "--run-dir", self.folder / "run")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stdout, address)

    def test_http_proxy_is_ignored(self):
        write_csv(self.folder / "train.csv", 40, 2)
        proxies = {name: "http://127.0.0.1:1" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy")}
        self.succeed(self.job(CSV_JOB.format(path="train.csv")), servers=2, env=proxies)

    def test_two_numeric_profiles_are_refused(self):
        write_csv(self.folder / "train.csv", 40, 2)
        wrapper = self.folder / "other_worker"
        from harness import BIN
        wrapper.write_text(f'#!/bin/sh\nexec "{BIN}/descent_worker" "$@" --numerics-profile other\n')
        wrapper.chmod(0o755)
        job = self.job(CSV_JOB.format(path="train.csv"))
        self.fails(job, 1, "(?i)numeric", args=["--worker-binary", wrapper])
        self.succeed(job, args=["--worker-binary", wrapper], sets=["consistency.allow_mixed_numerics=true"])

    def test_other_data_on_another_host(self):
        """A worker whose file differs is refused by name, and the others go on."""
        write_csv(self.folder / "train.csv", 400, 2)
        other = self.folder / "other"
        other.mkdir()
        write_csv(other / "train.csv", 401, 2, seed=9)
        port_file = self.folder / "port"
        job = self.job(CSV_JOB.format(path="train.csv").replace("epochs: 1", "epochs: 1000000"))
        server = self.start("descent_server", "--job", job, "--bind", "127.0.0.1:0", "--port-file", port_file,
                            "--run-dir", self.folder / "run")
        self.until(lambda: port_file.exists() and port_file.read_text().strip(), server)
        address = port_file.read_text().strip()
        self.start("descent_worker", "--coordinator", address)
        self.until(lambda: (self.folder / "run/metrics.jsonl").exists(), server)
        refused = self.command("descent_worker", "--coordinator", address, "--data-root", other)
        self.assertEqual(refused.returncode, 1, refused.stdout)
        self.assertRegex(refused.stdout, r"train\.csv")
        # A worker with another model: its tensors differ.
        shape = other / "shape"
        shape.mkdir()
        write_csv(shape / "train.csv", 400, 3)
        refused = self.command("descent_worker", "--coordinator", address, "--data-root", shape)
        self.assertEqual(refused.returncode, 1, refused.stdout)
        self.assertRegex(refused.stdout, "weights")
        status = self.command("descent", "status", address, "--json")
        self.assertEqual(json.loads(status.stdout)["phase"], "RUNNING", status.stdout)
        self.assertEqual(self.command("descent", "health", address).returncode, 0)
        self.assertEqual(self.command("descent", "stop", address).returncode, 0)
        self.assertIn(server.wait(60), (130, 143), server.log())

    def until(self, condition, process):
        import subprocess
        import time
        deadline = time.monotonic() + 60
        while not condition():
            self.assertIsNone(process.poll(), process.log())
            self.assertLess(time.monotonic(), deadline, process.log())
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                pass

    def test_a_gradient_that_is_not_finite(self):
        write_csv(self.folder / "train.csv", 400, 2)
        text = CSV_JOB.format(path="train.csv").replace("logistic", "linear").replace("0.1", "1e30")
        self.fails(self.job(text.replace("epochs: 1", "epochs: 100")), 1, "(?i)nan|inf", "rank 0", "clock", "weights|bias",
                   servers=2)

    def test_a_tensor_beyond_all_bounds(self):
        text = """
name: "huge" ranks: 1 rounds: 1
model { quadratic { dim: 1152921504606846976 } }
learning_rate { constant: 0.1 }
"""
        self.fails(self.job(text), 2, "model.quadratic.dim: 1152921504606846976 is not from 1")
        # One that only the model's tensors show: refused by the coordinator, by name.
        text = text.replace("1152921504606846976", "1099511627776")
        self.fails(self.job(text), 1, "1099511627776.*max_bytes")


if __name__ == "__main__":
    main()

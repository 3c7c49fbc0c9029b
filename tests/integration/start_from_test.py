"""Runs that start from the model of another."""
import json
import shutil
import unittest

import numpy

from harness import ClusterTest, write_csv, write_libsvm

# Sequential batches: an epoch is what the one before it was, wherever a run begins.
DENSE = """
name: "dense"
seed: {seed}
ranks: 4
batch_size: 16
epochs: {epochs}
data {{ sampling: SEQUENTIAL train {{ csv {{ path: "train.csv" header: true }} }} }}
model {{ mlp {{ hidden: 12 classes: 2 }} }}
learning_rate {{ constant: 0.05 }}
l2: 0.001
block_elements: 16
{more}
"""
SPARSE = """
name: "sparse"
seed: {seed}
ranks: 4
batch_size: 8
epochs: {epochs}
data {{ sampling: SEQUENTIAL train {{ libsvm {{ path: "train.svm" }} }} }}
model {{ factorization_machine {{ dim: 3 sparse_table: true }} }}
learning_rate {{ constant: 0.05 }}
l2: 0.001
slots: 16
{more}
"""


class StartFromTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 200, 6)
        write_libsvm(self.folder / "train.svm", 150, 400, 6)

    def run_job(self, text, epochs, seed=3, more="", **processes):
        return self.succeed(self.job(text.format(seed=seed, epochs=epochs, more=more)), **processes)

    def test_two_and_two_epochs_are_four(self):
        for text in (DENSE, SPARSE):
            whole = self.run_job(text, 4).summary["parameters_sha256"]
            half = self.run_job(text, 2, servers=2, workers=2)
            self.assertNotEqual(half.summary["parameters_sha256"], whole)
            for start in (half.run_dir / "model", half.run_dir / "model" / "model.npz"):
                for servers in (1, 3):
                    rest = self.run_job(text, 2, more=f'start_from: "{start}"', servers=servers, workers=2)
                    self.assertEqual(rest.summary["parameters_sha256"], whole, f"{start} on {servers} servers")
            # Another seed only matters to rows that the file does not have.
            other = self.run_job(text, 2, seed=4, more=f'start_from: "{start}"')
            self.assertEqual(other.summary["parameters_sha256"], whole)

    def test_through_deaths_and_with_replicas(self):
        half = self.run_job(SPARSE, 2)
        whole = self.run_job(SPARSE, 42).summary["parameters_sha256"]
        more = f'start_from: "{half.run_dir}/model" checkpoint {{ every_rounds: 20 }} metrics {{ every_rounds: 25 }}'
        for extra in ("", "replicas: 1"):
            run_dir = self.folder / f"killed{len(extra)}"
            job = self.job(SPARSE.format(seed=3, epochs=40, more=more + extra))
            process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir,
                                 *self.slow_worker(10))
            log = run_dir / "metrics.jsonl"
            self.wait_for(lambda: log.exists() and '"training"' in log.read_text(), process)
            self.kill_some(run_dir, "server")
            self.assertEqual(process.wait(120), 0, process.log())
            self.assertEqual(json.loads((run_dir / "summary.json").read_text())["parameters_sha256"], whole)

    def test_a_new_head_on_an_old_body(self):
        old = self.run_job(DENSE, 2)
        tensors = dict(numpy.load(old.run_dir / "model" / "model.npz"))
        body = [name for name, values in tensors.items() if 12 in values.shape and 2 not in values.shape]
        numpy.savez_compressed(self.folder / "body.npz", **{name: tensors[name] for name in body})
        refused = self.descent_run(self.job(DENSE.format(seed=3, epochs=1, more='start_from: "body.npz"')))
        self.assertEqual(refused.status, 1, refused.output)
        self.assertRegex(refused.output, r"start_from: tensor '[^']*': \S*body.npz has none: it has '")
        # Nothing but the body: everything is frozen, and no step is made.
        frozen = "".join(f'frozen: "{name}" ' for name in tensors)
        new = self.run_job(DENSE, 1, seed=9, more=f'start_from: "body.npz" start_from_partial: true {frozen}', servers=2)
        fresh = self.run_job(DENSE, 1, seed=9, more=frozen)
        saved = numpy.load(new.run_dir / "model" / "model.npz")
        initial = numpy.load(fresh.run_dir / "model" / "model.npz")
        for name, values in tensors.items():
            expected = values if name in body else initial[name]
            self.assertTrue((saved[name] == expected).all(), name)
        self.assertFalse(all((tensors[name] == initial[name]).all() for name in body))
        self.assertIn("it begins as the model says", new.logs())

    def test_the_file_is_part_of_the_job(self):
        half = self.run_job(DENSE, 1)
        shutil.copytree(half.run_dir / "model", self.folder / "start")
        told = self.command("descent", "validate", self.job(DENSE.format(seed=3, epochs=1, more='start_from: "start"')))
        self.assertEqual(told.returncode, 0, told.stdout)
        self.assertRegex(told.stdout, r'start_from_sha256: "[0-9a-f]{64}"')
        gone = self.command("descent", "validate", self.job(DENSE.format(seed=3, epochs=1, more='start_from: "none"')))
        self.assertEqual(gone.returncode, 2)
        self.assertIn("none", gone.stdout)

        # One server has read another file than the one that the job was resolved with.
        job = self.job(DENSE.format(seed=3, epochs=1, more='start_from: "start"'))
        port = self.folder / "port"
        first = self.start("descent_server", "--job", job, "--servers", 1, "--workers", 1, "--run-dir", self.folder / "changed",
                           "--bind", "127.0.0.1:0", "--port-file", port)
        self.wait_for(port.exists, first)
        shutil.copy(self.run_job(DENSE, 2).run_dir / "model" / "model.npz", self.folder / "start" / "model.npz")
        worker = self.start("descent_worker", "--coordinator", port.read_text().strip())
        self.assertEqual(first.wait(120), 1, first.log())
        self.assertEqual(worker.wait(120), 1, worker.log())
        self.assertRegex(worker.log(), r"is not the model that the job starts from: its SHA-256 is [0-9a-f]{64}; expected [0-9a-f]{64}")


if __name__ == "__main__":
    unittest.main()

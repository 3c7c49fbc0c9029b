"""L-BFGS, OWL-QN and Newton-CG on clusters: the optimum, the same bits on any cluster and after kills, and what they refuse."""
import json
import os
import signal
import subprocess
import unittest

import numpy

from harness import DEADLINE, ClusterTest, write_csv

ROWS, FEATURES, L2 = 700, 12, 1e-3
JOB = """
name: "full-gradient"
seed: 2
ranks: 5
epochs: {rounds}
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "train.csv" label: "y" header: true }} }}
}}
model {{ logistic {{}} }}
optimizer {{ {rule} }}
l2: 1e-3
block_elements: 4
evaluation {{ every_epochs: {rounds} objective: true }}
{more}
"""
RULES = ("lbfgs {}", "lbfgs { l1: 0.01 }", "newton_cg {}")


class FullGradientTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", ROWS, FEATURES)

    def text(self, rule, rounds=40, more=""):
        return JOB.format(rule=rule, rounds=rounds, more=more)

    # By Newton's method in float64, which shares nothing with the project; with l1 by proximal gradients.
    def optimum(self, l1):
        table = numpy.loadtxt(self.folder / "train.csv", delimiter=",", skiprows=1)
        x, y = numpy.column_stack([table[:, :-1], numpy.ones(ROWS)]), table[:, -1]
        decay = numpy.array([1.0] * FEATURES + [0.0])

        def gradient(w):
            return x.T @ (1 / (1 + numpy.exp(-x @ w)) - y) / ROWS + L2 * decay * w
        w = numpy.zeros(FEATURES + 1)
        if l1 == 0:
            for _ in range(50):
                p = 1 / (1 + numpy.exp(-x @ w))
                hessian = (x * (p * (1 - p))[:, None]).T @ x / ROWS + L2 * numpy.diag(decay)
                w -= numpy.linalg.solve(hessian, gradient(w))
        else:
            rate = 1 / (numpy.linalg.norm(x, 2) ** 2 / 4 / ROWS + L2)
            for _ in range(200000):
                w -= rate * gradient(w)
                w = numpy.sign(w) * numpy.maximum(0, abs(w) - rate * l1 * decay)
        z = x @ w
        loss = numpy.mean(numpy.logaddexp(0, z) - y * z)
        return w, loss + L2 / 2 * numpy.sum(decay * w * w) + l1 * numpy.sum(abs(decay * w))

    def test_the_optimum_is_reached(self):
        for rule in RULES:
            with self.subTest(rule=rule):
                result = self.succeed(self.job(self.text(rule, 60)), servers=2, workers=2)
                w, objective = self.optimum(0.01 if "l1" in rule else 0)
                self.assertLess(abs(result.summary["objective"] / objective - 1), 1e-6)
                model = numpy.load(next((result.run_dir / "model").glob("*.npz")))
                saved = numpy.concatenate([model[name].ravel() for name in sorted(model, key=lambda n: -model[n].size)])
                numpy.testing.assert_allclose(saved, w, atol=2e-4)
                if "l1" in rule:
                    numpy.testing.assert_array_equal(saved[abs(w) == 0], 0)
                    self.assertGreater(numpy.count_nonzero(saved == 0), 0)

    def test_same_bits_on_any_cluster(self):
        for rule in RULES:
            hashes = set()
            for servers, workers in ((1, 1), (3, 2), (2, 4)):
                result = self.succeed(self.job(self.text(rule, 25)), servers=servers, workers=workers)
                hashes.add((result.summary["parameters_sha256"], result.summary["state_sha256"]))
            self.assertEqual(len(hashes), 1, rule)

    def second_server(self, process):
        """Process id of the server that was told where the coordinator is."""
        out = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid=,args="], stdout=subprocess.PIPE, text=True)
        return [int(line.split()[0]) for line in out.stdout.splitlines() if "descent_server" in line and "--coordinator" in line][0]

    def test_same_bits_after_a_kill(self):
        rounds = 300
        job = self.job(self.text("lbfgs { history: 4 }", rounds, "checkpoint { every_rounds: 7 }"))
        undisturbed = self.succeed(job, servers=2, workers=2).summary

        def restorable(run_dir):
            return len(list((run_dir / "checkpoints").glob("cut-*/MANIFEST"))) > 1

        def doubled(run_dir):
            servers = self.status(run_dir).get("server", [])
            return len(servers) == 2 and all(server.get("synced") for server in servers)
        for name, more, ready in (("restored", (), restorable), ("promoted", ("--set", "replicas=1"), doubled)):
            with self.subTest(name):
                run_dir = self.folder / name
                process = self.start("descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir", run_dir,
                                     *self.slow_worker(2), *more)
                self.wait_for(lambda: ready(run_dir) and int(self.status(run_dir).get("round", 0)) > 20, process)
                os.kill(self.second_server(process), signal.SIGKILL)
                self.assertEqual(process.wait(DEADLINE), 0, process.log())
                summary = json.loads((run_dir / "summary.json").read_text())
                self.assertEqual(summary["parameters_sha256"], undisturbed["parameters_sha256"])
                self.assertEqual(summary["state_sha256"], undisturbed["state_sha256"])

    def test_what_does_not_go_with_it_is_refused(self):
        for sets, expected in (
                (("batch_size=10",), "batch_size: 10, but lbfgs takes the gradient of all data: leave it out"),
                (("learning_rate={ constant: 1 }",), "learning_rate: lbfgs finds the size of each step by itself: leave it out"),
                (("model={ mlp { hidden: 3 classes: 2 } }",),
                 "optimizer: lbfgs is for models whose objective is convex and smooth; its objective is not convex"),
                (("model={ svm {} }",), "the hinge loss has a kink: set model.svm.squared_hinge"),
                (("consistency.mode=ASYNC",), "consistency.mode: lbfgs takes the gradient of all data at one point, which SYNC gives"),
                (("consistency.backup_ranks=1",), "consistency.backup_ranks: lbfgs takes the gradient of all data"),
                (("optimizer.lbfgs.history=21",), "optimizer.lbfgs.history: 21 is not from 1 to 20"),
                (("encoding=FP16",), "encoding: lbfgs takes differences of gradients, which 16 bits do not have"),
        ):
            result = self.descent_run(self.job(self.text("lbfgs {}")), sets=sets)
            self.assertNotEqual(result.status, 0, expected)
            self.assertIn(expected, result.output)


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Local training on clusters: the same bits on any cluster, after a kill and a resumption, replayed; fewer bytes; what it
makes of a convex problem; what is refused."""
import json
import signal
import unittest

import numpy

from harness import DEADLINE, ClusterTest, write_csv

ROWS, FEATURES = 1100, 10
JOB = """
name: "local"
seed: 4
ranks: 4
batch_size: 8
epochs: {epochs}
block_elements: 64
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "valid.csv" label: "y" header: true }} }}
}}
model {{ {model} }}
optimizer {{ {rule} }}
learning_rate {{ constant: 1 }}
local_training {{ steps: {steps} learning_rate: 0.05 }}
l2: 1e-3
evaluation {{ every_epochs: 1 objective: true }}
metrics {{ every_rounds: 5 }}
{more}
"""
MLP = "mlp { hidden: 24 activation: TANH classes: 2 dropout: 0.1 }"


class LocalTrainingTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", ROWS, FEATURES)
        write_csv(self.folder / "valid.csv", 300, FEATURES)

    def text(self, steps=6, model=MLP, rule="momentum { momentum: 0.4 }", epochs=3, more=""):
        return JOB.format(steps=steps, model=model, rule=rule, epochs=epochs, more=more)

    def hashes(self, summary):
        return summary["parameters_sha256"], summary["state_sha256"]

    def test_same_bits_on_any_cluster(self):
        for rule, sets in (("momentum { momentum: 0.4 }", ()),
                           ("sgd {}", ("encoding=BF16", "averaging={ from_round: 4 }")),
                           ("adam {}", ("learning_rate.constant=0.01", "clip={ global_norm: 0.5 }", "gradient_noise={ eta: 1e-6 }"))):
            with self.subTest(rule=rule):
                job = self.job(self.text(rule=rule))
                found = {self.hashes(self.succeed(job, servers=s, workers=w, sets=sets, args=self.slow_worker(1)).summary)
                         for s in (1, 2) for w in (1, 2, 4)}
                self.assertEqual(len(found), 1, found)

    def test_clocks_and_examples(self):
        result = self.succeed(self.job(self.text()), workers=2)
        # 275 rows of a rank are 6 clocks of 6 mini-batches of 8, the last of fewer.
        self.assertIn("4 ranks x 6 steps x batch 8 = 192 examples a round", result.output)
        evaluations = [m for m in result.metrics if m["kind"] == "evaluation"]
        self.assertEqual([m["clock"] for m in evaluations], [6, 12, 18])
        self.assertEqual([m["epoch"] for m in evaluations], [1, 2, 3])
        training = [m for m in result.metrics if m["kind"] == "training"]
        self.assertEqual(sum(m["examples"] for m in training), 3 * ROWS)
        self.assertEqual(result.summary["clocks"], 18)
        self.assertGreater(training[0]["loss"], training[-1]["loss"])
        self.assertEqual({m["rate"] for m in training}, {1})
        last = evaluations[-1]
        # The objective counts the l2 that is in the ranks' steps.
        model = numpy.load(result.run_dir / "model" / "model.npz")
        squares = sum((model[name].astype(float) ** 2).sum() for name in model.files if "weights" in name)
        self.assertAlmostEqual(last["objective"] - last["train_loss"], 0.5e-3 * squares, delta=1e-6)

    def test_same_bits_after_the_death_of_a_worker(self):
        job = self.job(self.text(epochs=40))
        undisturbed = self.succeed(job, servers=2, workers=2).summary
        run_dir = self.folder / "killed"
        process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir, *self.slow_worker(10))
        self.wait_for(lambda: int(self.status(run_dir).get("round", 0)) > 10, process)
        self.kill_some(run_dir, "worker")
        self.assertEqual(process.wait(DEADLINE), 0, process.log())
        self.assertEqual(self.hashes(json.loads((run_dir / "summary.json").read_text())), self.hashes(undisturbed))

    def test_same_bits_after_a_stop_and_other_processes(self):
        job = self.job(self.text(epochs=40, more="checkpoint { every_rounds: 7 }"))
        undisturbed = self.succeed(job, servers=1, workers=2).summary
        run_dir = self.folder / "stopped"
        process = self.start("descent", "run", job, "--servers", 2, "--workers", 2, "--run-dir", run_dir, *self.slow_worker(10))
        self.wait_for(lambda: int(self.status(run_dir).get("round", 0)) > 15, process)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(DEADLINE), 130, process.log())
        resumed = self.command("descent", "run", job, "--resume", "--run-dir", run_dir, "--servers", 3, "--workers", 1)
        self.assertEqual(resumed.returncode, 0, resumed.stdout)
        self.assertEqual(self.hashes(json.loads((run_dir / "summary.json").read_text())), self.hashes(undisturbed))

    def test_rounds_that_left_ranks_out_are_replayed(self):
        for late in ("ABANDON", "FINISH"):
            with self.subTest(late):
                more = f"record_order: true consistency {{ backup_ranks: 1 late: {late} }}"
                result = self.succeed(self.job(self.text(epochs=6, more=more)), servers=2, workers=3, args=self.slow_worker(3))
                replayed = self.command("descent", "replay", result.run_dir)
                self.assertEqual(replayed.returncode, 0, replayed.stdout)
                self.assertEqual(replayed.stdout.splitlines()[-1], "equal")
                self.assertEqual(replayed.stdout.count("parameters_sha256 " + result.summary["parameters_sha256"]), 2)

    def test_as_good_with_fewer_bytes(self):
        kept = ("evaluation={ every_rounds: 1000 }", "metrics.every_rounds=1000")
        every, local = (self.succeed(self.job(self.text(steps=steps, model="logistic {}", rule="sgd {}", epochs=20)), servers=2,
                                     workers=2, sets=kept).summary for steps in (1, 7))
        print(f"a step a round: accuracy {every['accuracy']:.3f}, {every['payload_bytes']} bytes; "
              f"seven: {local['accuracy']:.3f}, {local['payload_bytes']} bytes")
        self.assertGreater(local["accuracy"], every["accuracy"] - 0.02)
        self.assertGreater(local["accuracy"], 0.85)
        self.assertLess(local["payload_bytes"], every["payload_bytes"] / 5)

    def test_steps_on_all_data_end_at_the_optimum(self):
        # Each mini-batch of each rank is the same 50 rows, so that the copies are one, which makes steps of gradient descent.
        rng = numpy.random.default_rng(3)
        x = rng.normal(size=(50, 3))
        y = x @ [1.0, -2.0, 0.5] + 0.3 + rng.normal(size=50)
        rows = "".join(",".join(f"{v:.5f}" for v in (*a, b)) + "\n" for a, b in zip(x, y))
        (self.folder / "train.csv").write_text("a,b,c,y\n" + 24 * rows)
        (self.folder / "valid.csv").write_text("a,b,c,y\n" + rows)
        result = self.succeed(self.job(self.text(model="linear {}", rule="sgd {}", epochs=100)), workers=2,
                              sets=("batch_size=50", "local_training.learning_rate=0.1", "data.sampling=SEQUENTIAL"))
        self.assertEqual(result.summary["clocks"], 100)
        table = numpy.loadtxt(self.folder / "valid.csv", delimiter=",", skiprows=1)
        inputs = numpy.column_stack([table[:, :3], numpy.ones(50)])
        decay = numpy.diag([1e-3, 1e-3, 1e-3, 0])
        w = numpy.linalg.solve(inputs.T @ inputs / 50 + decay, inputs.T @ table[:, 3] / 50)
        model = numpy.load(result.run_dir / "model" / "model.npz")
        numpy.testing.assert_allclose(numpy.concatenate([model["weights"].ravel(), model["bias"].ravel()]), w, atol=1e-5)

    def test_what_has_no_meaning_beside_it_is_refused(self):
        for sets, expected in (
                (("consistency.mode=ASYNC",),
                 "consistency.mode: local_training averages copies that all began with the same parameters, which SYNC gives"),
                (("optimizer={ lamb {} }", "l2=0"), "optimizer.lamb: takes its rate from the norms of a gradient"),
                (("local_training.steps=0",), "local_training.steps: 0 is not from 1 to 16777216")):
            refused = self.descent_run(self.job(self.text()), sets=sets)
            self.assertEqual(refused.status, 2, refused.output)
            self.assertIn(expected, refused.output)


if __name__ == "__main__":
    unittest.main(verbosity=2)

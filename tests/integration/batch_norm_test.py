"""Batch normalisation through whole clusters: the same bits on any, through deaths, resumed and replayed; what the
servers keep of the batches is what a plain program counts, and what prediction goes by."""
import json
import os
import pathlib
import re
import signal

import numpy

from harness import DEADLINE, ClusterTest, main, write_csv

FEATURES = 12
JOB = """
name: "normalised"
seed: {seed}
ranks: {ranks}
batch_size: 16
{length}
block_elements: 64
data {{ sampling: {sampling} train {{ csv {{ path: "train.csv" label: "y" header: true }} }} }}
model {{ {model} }}
consistency {{ {consistency} }}
optimizer {{ {rule} }}
learning_rate {{ constant: 0.02 }}
l2: 1e-4
{more}
"""
NET = "mlp { hidden: 40 hidden: 40 activation: TANH classes: 2 batch_norm: true residual: true }"
IMAGES = ("convolution { height: 3 width: 4 layer { filters: 6 kernel: 2 } layer { filters: 4 kernel: 2 padding: 1 } "
          "top { hidden: 10 classes: 2 batch_norm: true batch_norm_decay: 0.9 } }")
SHAS = ("parameters_sha256", "state_sha256")


class BatchNormTest(ClusterTest):
    def setUp(self):
        super().setUp()
        # Four shares of 289 rows: the last batch of each has one.
        write_csv(self.folder / "train.csv", 4 * 289, FEATURES)
        table = [line.split(",") for line in (self.folder / "train.csv").read_text().splitlines()[1:]]
        numbers = numpy.array(table, dtype=numpy.float64)
        self.x, self.y = numbers[:, :-1].astype(numpy.float32).astype(numpy.float64), numbers[:, -1]

    def normalised(self, model=NET, length="epochs: 2", consistency="mode: SYNC", rule="adam {}", more="", ranks=4, seed=1,
                   sampling="WITHOUT_REPLACEMENT"):
        return self.job(JOB.format(model=model, length=length, consistency=consistency, rule=rule, more=more, ranks=ranks,
                                   seed=seed, sampling=sampling))

    def hashes(self, job, layouts):
        return {tuple(self.succeed(job, servers=s, workers=w, args=self.slow_worker()).summary[sha] for sha in SHAS)
                for s, w in layouts}

    def test_any_cluster_has_the_same_bits(self):
        found = self.hashes(self.normalised(), [(s, w) for s in (1, 2) for w in (1, 2, 4)])
        self.assertEqual(len(found), 1, found)
        for other in (dict(model=IMAGES), dict(consistency="mode: CUSTOM staleness: 2 apply: ROUND"),
                      dict(rule="momentum {}", more="clip { global_norm: 0.3 } averaging { decay: 0.9 }"),
                      dict(model="autoencoder { hidden: 6 activation: TANH batch_norm: true }", rule="lars { trust: 0.02 }",
                           more="clip { value: 0.5 }")):
            different = self.hashes(self.normalised(**other), [(1, 1), (2, 3)])
            self.assertEqual(len(different), 1, other)
            self.assertNotEqual(different, found)

    def victim(self, run, binary, flag=""):
        for pid in pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
            if binary in command and flag in command:
                return int(pid)
        self.fail(f"no {binary} {flag}: {run.log()}")

    def cuts(self, run_dir):
        return sorted((run_dir / "checkpoints").glob("cut-*/MANIFEST"))

    def test_deaths_and_a_resumption_change_nothing(self):
        job = self.normalised(length="rounds: 400", more="checkpoint { every_rounds: 40 keep: 2 } cluster { lease_seconds: 2 }")
        whole = self.succeed(job).summary
        run_dir = self.folder / "disturbed"
        run = self.start("descent", "run", job, "--servers", "2", "--workers", "2", "--run-dir", run_dir,
                         *self.slow_worker(5))
        self.wait_for(lambda: len(self.cuts(run_dir)) > 0, run)
        os.kill(self.victim(run, "descent_worker"), signal.SIGKILL)
        number = self.cuts(run_dir)[-1].parent.name
        self.wait_for(lambda: self.cuts(run_dir)[-1].parent.name > number, run)
        os.kill(self.victim(run, "descent_server", "--coordinator"), signal.SIGKILL)
        number = self.cuts(run_dir)[-1].parent.name
        self.wait_for(lambda: self.cuts(run_dir)[-1].parent.name > number, run)
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(DEADLINE), 130, run.log())
        resumed = self.command("descent", "run", job, "--resume", "--run-dir", run_dir, "--servers", 1, "--workers", 3)
        self.assertEqual(resumed.returncode, 0, resumed.stdout)
        summary = json.loads((run_dir / "summary.json").read_text())
        for sha in SHAS:
            self.assertEqual(summary[sha], whole[sha], sha)

    def test_pushes_are_replayed(self):
        job = self.normalised(length="rounds: 60", consistency="mode: ASYNC", more="record_order: true")
        result = self.succeed(job, servers=2, workers=3, args=self.slow_worker())
        replayed = self.command("descent", "replay", result.run_dir)
        self.assertEqual(replayed.returncode, 0, replayed.stdout)
        self.assertEqual(replayed.stdout.splitlines()[-1], "equal")

    def forward(self, model, x):
        """What a net of one hidden layer predicts."""
        p = {name: model[name].astype(numpy.float64) for name in model.files}
        normal = (x @ p["layer1/weights"] - p["layer1/norm/mean"]) / numpy.sqrt(p["layer1/norm/variance"] + 1e-5)
        hidden = numpy.tanh(p["layer1/norm/scale"] * normal + p["layer1/norm/shift"])
        return hidden @ p["layer2/weights"] + p["layer2/bias"]

    def test_prediction_goes_by_the_running_statistics(self):
        job = self.normalised(
            model="mlp { hidden: 16 activation: TANH classes: 2 batch_norm: true batch_norm_decay: 0.9 }",
            length="epochs: 6")
        result = self.succeed(job, servers=2, workers=2)
        scores = self.forward(numpy.load(result.run_dir / "model" / "model.npz"), self.x)
        process = self.command("descent", "predict", "--model", result.run_dir / "model", "--data", self.folder / "train.csv",
                               "--probabilities")
        self.assertEqual(process.returncode, 0, process.stdout)
        lines = [line.split() for line in process.stdout.splitlines() if not line.startswith("descent:")]
        found = numpy.array([float(line[2]) for line in lines])
        expected = 1 / (1 + numpy.exp(scores[:, 0] - scores[:, 1]))
        self.assertEqual(len(found), len(self.x))
        self.assertLess(numpy.abs(found - expected).max(), 1e-4)
        self.assertGreater(numpy.mean((found > 0.5) == (self.y == 1)), 0.9)
        roles = {t["name"]: t["role"] for t in json.loads((result.run_dir / "model" / "model.json").read_text())["tensors"]}
        self.assertEqual([name for name, role in roles.items() if role == "STATISTIC"],
                         ["layer1/norm/mean", "layer1/norm/variance"])

    def test_statistics_are_those_of_a_plain_program(self):
        # Weights that stay, and batches in the order of the file: two ranks' in each round.
        job = self.normalised(
            model="mlp { hidden: 5 classes: 2 batch_norm: true batch_norm_decay: 0.8 }", rule="sgd {}", ranks=2,
            sampling="SEQUENTIAL", length="epochs: 1", more='frozen: "layer1/weights" metrics { every_rounds: 1 }')
        result = self.succeed(job, servers=2, workers=2)
        model = numpy.load(result.run_dir / "model" / "model.npz")
        values = self.x @ model["layer1/weights"].astype(numpy.float64)
        mean, variance = numpy.zeros(5), numpy.ones(5)
        half = len(values) // 2
        shares = values[:half], values[half:]
        for begin in range(0, half, 16):
            batches = [share[begin:begin + 16] for share in shares]
            examples = sum(len(batch) for batch in batches)
            mean = 0.8 * mean + 0.2 * sum(len(b) * b.mean(0) for b in batches) / examples
            variance = 0.8 * variance + 0.2 * sum(len(b) * b.var(0, ddof=1) for b in batches) / examples
        numpy.testing.assert_allclose(model["layer1/norm/mean"], mean, rtol=1e-4, atol=1e-5)
        numpy.testing.assert_allclose(model["layer1/norm/variance"], variance, rtol=1e-4)
        self.assertFalse((model["layer1/norm/scale"] == 1).all())

    def test_a_model_starts_where_another_ended(self):
        fields = dict(rule="sgd {}", sampling="SEQUENTIAL")
        whole = self.succeed(self.normalised(length="epochs: 4", **fields)).summary["parameters_sha256"]
        half = self.succeed(self.normalised(**fields), servers=2, workers=2)
        self.assertNotEqual(half.summary["parameters_sha256"], whole)
        rest = self.succeed(self.normalised(more=f'start_from: "{half.run_dir}/model"', seed=7, **fields), servers=2)
        self.assertEqual(rest.summary["parameters_sha256"], whole)

    def test_what_is_refused(self):
        refused = self.descent_run(self.normalised(more='frozen: "layer1/norm/variance"'))
        self.assertNotEqual(refused.status, 0)
        self.assertIn('"layer1/norm/variance" is a running statistic of the batches', refused.output + refused.logs())
        for sets, why in ((("batch_size=1",), "batch_size: 1, but model.mlp.batch_norm needs examples to compare"),
                          (("encoding=FP16",), "encoding: FP16 does not go with model.mlp.batch_norm"),
                          (("model.mlp.layer_norm=true",), "model.mlp.batch_norm: and layer_norm are both set")):
            process = self.command("descent", "run", self.normalised(), "--run-dir", self.folder / "none",
                                   *[flag for s in sets for flag in ("--set", s)])
            self.assertEqual(process.returncode, 2, process.stdout)
            self.assertRegex(process.stdout, re.escape(why))


if __name__ == "__main__":
    main()

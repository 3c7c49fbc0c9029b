"""Features as a job transforms them: raw files in, with what the training data say of them, on any cluster and in predict."""
import json
import math
import random
import signal
import unittest

from harness import DEADLINE, ClusterTest

# One feature in thousandths, one in ten thousands far from 0, a rare text, one that never changes.
JOB = """
name: "features"
seed: 3
ranks: 4
batch_size: 16
epochs: 4
data {{
  train {{ csv {{ path: "train.csv" label: "y" header: true }} }}
  validation {{ csv {{ path: "valid.csv" label: "y" header: true }} }}
  shard_rows: 100
  features {{ one_hot: "colour" missing {{ marker: "NA" }} {features} }}
}}
model {{ logistic {{}} }}
optimizer {{ sgd {{}} }}
learning_rate {{ constant: 0.5 }}
evaluation {{ every_epochs: 1 }}
"""


def write_table(path, rows, seed, colours=("red", "green", "blue")):
    rng = random.Random(seed)
    lines = ["small,large,colour,same,y"]
    for _ in range(rows):
        a, b, colour = rng.gauss(0, 1), rng.gauss(0, 1), rng.choice(colours)
        score = 2 * a - 2 * b + {"red": 3, "green": -3}.get(colour, 0)
        large = "NA" if rng.random() < 0.02 else f"{50000 + 9000 * b:.2f}"
        lines.append(f"{1e-3 * a:.8f},{large},{colour},1,{int(score > 0)}")
    path.write_text("\n".join(lines) + "\n")


class FeaturesTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_table(self.folder / "train.csv", 900, 1)
        write_table(self.folder / "valid.csv", 400, 2)

    def of(self, features):
        return self.job(JOB.format(features=features))

    def fitted(self, result):
        return json.loads((result.run_dir / "model/features.json").read_text())

    def test_scaling_makes_a_badly_scaled_table_converge(self):
        scaled = self.succeed(self.of("standardize {}"))
        self.assertGreater(scaled.summary["accuracy"], 0.93)
        self.assertIn("no or next to no variance in the training data, not scaled: 'same'", scaled.logs())
        raw = self.descent_run(self.of(""))
        if raw.status == 0:  # else a NaN or an Inf has ended it
            self.assertLess(raw.summary["accuracy"], 0.8)
            self.assertGreater(raw.summary["loss"], 10 * scaled.summary["loss"])

    def test_the_same_bits_on_any_cluster(self):
        for features in ("standardize {}", "robust {} row_norm: ROW_L2 log: 'large'", "min_max {} compare_shares: true",
                         "standardize {} pca: 4"):
            job, hashes, fitted = self.of(features), set(), set()
            for servers, workers in ((1, 1), (1, 2), (2, 1), (2, 2)):
                result = self.succeed(job, servers=servers, workers=workers, args=self.slow_worker(), sets=("epochs=2",))
                hashes.add((result.summary["parameters_sha256"], result.summary["state_sha256"]))
                fitted.add((result.run_dir / "model/features.json").read_text())
            self.assertEqual(len(hashes), 1, features)
            self.assertEqual(len(fitted), 1, features)

    def test_what_is_fitted_is_of_the_training_data(self):
        rows = [line.split(",") for line in (self.folder / "train.csv").read_text().splitlines()[1:]]
        large = [float(row[1]) for row in rows if row[1] != "NA"]
        mean = sum(large) / len(large)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in large) / len(large))
        fitted = self.fitted(self.succeed(self.of("standardize {}"), workers=2))
        self.assertEqual(fitted["name"], ["small", "large", "colour", "same"])
        self.assertEqual(fitted["one_hot"], [{"column": "2", "category": ["blue", "green", "red"]}])
        # Values are read as floats, which are exact to 0.004 here.
        self.assertAlmostEqual(fitted["shift"][1], mean, delta=1e-3)
        self.assertAlmostEqual(fitted["scale"][1] * deviation, 1, delta=1e-6)
        self.assertEqual(fitted["constant"], ["3"])

    def predict(self, result, data, *flags, stdin=None):
        predicted = self.command("descent", "predict", "--model", result.run_dir / "model", "--data", data, *flags,
                                 stdin=stdin)
        self.assertEqual(predicted.returncode, 0, predicted.stdout)
        return predicted.stdout, [line for line in predicted.stdout.splitlines() if line[:1] in "01"]

    def test_predict_reads_raw_data(self):
        result = self.succeed(self.of("standardize {} hashed: 'small' hash_buckets: 4"), servers=2, workers=2)
        _, lines = self.predict(result, self.folder / "valid.csv")
        rows = (self.folder / "valid.csv").read_text().splitlines()
        truth = [row.rsplit(",", 1)[1] for row in rows[1:]]
        self.assertEqual(len(lines), len(truth))
        right = sum(line.split()[0] == label for line, label in zip(lines, truth))
        self.assertAlmostEqual(right / len(truth), result.summary["accuracy"], places=6)
        # The same without labels, from standard input.
        unlabelled = "\n".join(row.rsplit(",", 1)[0] for row in rows) + "\n"
        _, again = self.predict(result, "-", "--no-labels", stdin=unlabelled)
        self.assertEqual(again, lines)
        # What the training data did not have is said, and is no obstacle.
        write_table(self.folder / "other.csv", 50, 3, ("red", "mauve"))
        output, lines = self.predict(result, self.folder / "other.csv")
        self.assertIn("categories that the training data don't have, all zeros here: 'mauve' of column 'colour'", output)
        self.assertEqual(len(lines), 50)
        # Without its file the model is not applied otherwise than it was trained.
        (result.run_dir / "model/features.json").write_text("{}")
        damaged = self.command("descent", "predict", "--model", result.run_dir / "model", "--data",
                               self.folder / "valid.csv")
        self.assertEqual(damaged.returncode, 1)
        self.assertIn("features.json: CRC32C is", damaged.stdout)

    def test_a_resumed_run_has_the_same_statistics(self):
        sets = ("checkpoint.every_rounds=20", "epochs=100", "metrics.every_rounds=5")
        job = self.of("robust {}")
        whole = self.succeed(job, servers=2, workers=2, sets=sets)
        run_dir = self.folder / "stopped"
        flags = [flag for assignment in sets for flag in ("--set", assignment)]
        process = self.start("descent", "run", job, "--servers", 1, "--workers", 2, "--run-dir", run_dir, *flags,
                             *self.slow_worker(10))
        self.wait_for(lambda: (run_dir / "metrics.jsonl").exists() and (run_dir / "metrics.jsonl").read_text(), process)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(DEADLINE), 130, process.log())
        resumed = self.command("descent", "run", job, "--resume", "--run-dir", run_dir, "--servers", 2, "--workers", 1,
                               *flags)
        self.assertEqual(resumed.returncode, 0, resumed.stdout)
        summary = json.loads((run_dir / "summary.json").read_text())
        self.assertEqual(summary["parameters_sha256"], whole.summary["parameters_sha256"])
        self.assertEqual((run_dir / "model/features.json").read_text(),
                         (whole.run_dir / "model/features.json").read_text())

    def test_a_replay_has_the_same_statistics(self):
        result = self.succeed(self.of("standardize {}"), servers=2, workers=2, args=self.slow_worker(),
                              sets=("record_order=true", "consistency={ mode: BOUNDED staleness: 2 }"))
        replayed = self.command("descent", "replay", result.run_dir)
        self.assertEqual(replayed.returncode, 0, replayed.stdout)
        self.assertIn(result.summary["parameters_sha256"], replayed.stdout)

    def test_shares_whose_labels_differ_are_told(self):
        rows = (self.folder / "train.csv").read_text().splitlines()
        by_label = [rows[0], *sorted(rows[1:], key=lambda row: row[-1])]
        (self.folder / "train.csv").write_text("\n".join(by_label) + "\n")
        features = "standardize {} compare_shares: true"
        told = "ranks' shares differ from those of all by more than chance"
        for workers in (1, 2):
            result = self.succeed(self.of(features), workers=workers, sets=("data.sampling=SEQUENTIAL", "epochs=1"))
            self.assertEqual(result.logs().count(told), 1)
        shuffled = self.succeed(self.of(features), workers=2, sets=("data.window_shards=9", "epochs=1"))
        self.assertNotIn(told, shuffled.logs())

    def test_sparse_data(self):
        rng = random.Random(5)
        for name, rows in (("train.svm", 600), ("valid.svm", 300)):
            with open(self.folder / name, "w") as out:
                for _ in range(rows):
                    label = rng.randrange(2)
                    out.write(f"{label} {1 + label}:{rng.uniform(1e4, 2e4):.3f} {rng.randrange(10, 60)}:1\n")
        text = """
name: "sparse" seed: 3 ranks: 4 batch_size: 16 epochs: 4
data {{
  train {{ libsvm {{ path: "train.svm" {count} }} }}
  validation {{ libsvm {{ path: "valid.svm" {count} }} }}
  shard_rows: 100
  features {{ {features} }}
}}
model {{ logistic {{ {table} }} }}
optimizer {{ sgd {{}} }}
learning_rate {{ constant: 0.5 }}
"""
        for features, table in (("max_abs {}", ""), ("standardize {}", ""), ("hash_buckets: 32 log: '*' robust {}", ""),
                                ("log: '*' row_norm: ROW_L2", "sparse_table: true")):
            job = self.job(text.format(features=features, table=table, count="" if table else "features: 60"))
            results = [self.succeed(job, servers=s, workers=w) for s, w in ((1, 1), (2, 2))]
            self.assertEqual(*(result.summary["parameters_sha256"] for result in results))
            self.assertGreater(results[0].summary["accuracy"], 0.9, features)
            _, lines = self.predict(results[1], self.folder / "valid.svm")
            truth = [line[0] for line in (self.folder / "valid.svm").read_text().splitlines()]
            right = sum(line.split()[0] == label for line, label in zip(lines, truth))
            self.assertAlmostEqual(right / len(truth), results[1].summary["accuracy"], places=6)

    def test_bad_input_is_named(self):
        def failure(features):
            result = self.descent_run(self.of(features))
            self.assertNotEqual(result.status, 0)
            return result.output

        self.assertIn("features.log: the data have no feature column 'weight'", failure("log: 'weight'"))
        self.assertIn("column 'small': more than 2 categories (features.max_categories)",
                      failure("one_hot: 'small' max_categories: 2"))
        (self.folder / "valid.csv").write_text("small,huge,colour,same,y\n1,1,red,1,0\n")
        self.assertIn("the validation data: features: column 1 of the data is 'huge', of the training data 'large'",
                      failure("standardize {}"))


if __name__ == "__main__":
    unittest.main(verbosity=2)

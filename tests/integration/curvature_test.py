"""descent curvature: what is told of trained models, against what is known of them."""
import json
import unittest

import numpy

from harness import ClusterTest, write_csv

JOB = """
name: "point"
seed: 3
ranks: 2
batch_size: {batch}
rounds: {rounds}
l2: {l2}
data {{ train {{ csv {{ path: "train.csv" label: "y" header: true }} }} {features} }}
model {{ {model} }}
learning_rate {{ constant: {rate} }}
{more}
"""


class CurvatureTest(ClusterTest):
    def setUp(self):
        super().setUp()
        write_csv(self.folder / "train.csv", 300, 4)

    def trained(self, model, rounds=1, rate=0.1, l2=0, batch=300, features="", more=""):
        job = JOB.format(model=model, rounds=rounds, rate=rate, l2=l2, batch=batch, features=features, more=more)
        return self.succeed(self.job(job)).run_dir / "model"

    def probe(self, model, *args):
        told = self.command("descent", "curvature", "--model", model, "--json", *args)
        self.assertEqual(told.returncode, 0, told.stdout)
        return json.loads(told.stdout)

    def refused(self, model, *args):
        told = self.command("descent", "curvature", "--model", model, *args)
        self.assertEqual(told.returncode, 1, told.stdout)
        return told.stdout

    def test_a_quadratic_without_data(self):
        job = self.job('name: "bowl" seed: 1 ranks: 1 rounds: 200 model { quadratic { dim: 9 center: 2 start: 5 } } '
                       "optimizer { sgd {} } learning_rate { constant: 0.2 }")
        model = self.succeed(job).run_dir / "model"
        found = self.probe(model)
        self.assertEqual((found["parameters"], found["rows"], found["verdict"]), (9, 0, "near a minimum"))
        for end in ("least", "greatest"):
            self.assertAlmostEqual(found[end]["eigenvalue"], 2, places=7)
        text = self.command("descent", "curvature", "--model", model).stdout
        self.assertIn("near a minimum: ", text)
        self.assertIn("9 parameters\n", text)
        short = self.succeed(job, sets=("rounds=1",)).run_dir / "model"
        self.assertEqual(self.probe(short)["verdict"], "not stationary")
        self.assertEqual(self.probe(short, "--stationary-below", "100")["verdict"], "near a minimum")

    def test_logistic_regression_by_numpy(self):
        model = self.trained("logistic {}", l2=0.02, rounds=400, rate=2)
        table = numpy.loadtxt(self.folder / "train.csv", delimiter=",", skiprows=1)
        x, y = numpy.hstack([table[:, :-1], numpy.ones((300, 1))]).astype(numpy.float32).astype(float), table[:, -1]
        numbers = numpy.load(model / "model.npz")
        w = numpy.concatenate([numbers["weights"].ravel(), numbers["bias"].ravel()]).astype(float)
        for rows in (300, 50):
            taken = x[::300 // rows], y[::300 // rows]
            p = 1 / (1 + numpy.exp(-taken[0] @ w))
            decay = numpy.array([0.02] * 4 + [0])
            hessian = (taken[0].T * (p * (1 - p))) @ taken[0] / rows + numpy.diag(decay)
            gradient = taken[0].T @ (p - taken[1]) / rows + decay * w
            found = self.probe(model, "--rows", rows)
            self.assertEqual((found["rows"], found["train_rows"]), (rows, 300))
            eigenvalues = numpy.linalg.eigvalsh(hessian)
            self.assertAlmostEqual(found["least"]["eigenvalue"], eigenvalues[0], places=7)
            self.assertAlmostEqual(found["greatest"]["eigenvalue"], eigenvalues[-1], places=7)
            self.assertAlmostEqual(found["gradient_norm"], numpy.linalg.norm(gradient), places=8)
        found = self.probe(model)
        self.assertEqual(found["verdict"], "near a minimum")
        without = self.probe(model, "--set", "l2=0")
        self.assertEqual(without["l2"], 0)
        self.assertLess(without["least"]["eigenvalue"], found["least"]["eigenvalue"])

    def test_a_net_that_begins_at_zero_stays_in_a_saddle(self):
        # As many of each class, or the output's biases would leave.
        lines = (self.folder / "train.csv").read_text().splitlines()
        ones = [line for line in lines[1:] if line.endswith(",1")][:100]
        zeros = [line for line in lines[1:] if line.endswith(",0")][:100]
        (self.folder / "train.csv").write_text("\n".join([lines[0], *ones, *zeros]) + "\n")
        model = self.trained("mlp { hidden: 5 classes: 2 activation: TANH initialization: ZEROS }", rounds=20, batch=100)
        found = self.probe(model)
        self.assertEqual(found["verdict"], "saddle", found)
        self.assertLess(found["gradient_norm"], 1e-6)
        self.assertLess(found["least"]["eigenvalue"], -0.05)
        self.assertEqual(self.probe(model, "--seed", 2)["verdict"], "saddle")
        self.assertEqual(self.probe(model), found, "the same bits")

    def test_features_are_those_of_the_model(self):
        model = self.trained("linear {}", features="features { standardize {} }", rounds=200, rate=0.3)
        found = self.probe(model)
        self.assertEqual(found["verdict"], "near a minimum", found)
        # Standardised columns and a bias: the trace of the Hessian is their number.
        self.assertGreater(found["greatest"]["eigenvalue"], 1)
        self.assertLess(found["greatest"]["eigenvalue"], 5)
        other = self.folder / "other"
        other.mkdir()
        write_csv(other / "train.csv", 300, 4, seed=2)
        self.assertIn("these are not the data", self.refused(model, "--data-root", other))

    def test_what_can_not_be_probed(self):
        self.assertIn("nowhere", self.refused(self.folder / "nowhere"))
        model = self.trained("mlp { hidden: 3 classes: 2 dropout: 0.5 }")
        self.assertIn("with dropout the training loss is a random one", self.refused(model))
        self.assertIn(self.probe(model, "--set", "model.mlp.dropout=0")["verdict"], ("not stationary", "saddle", "near a minimum", "undecided"))
        model = self.trained("linear {}", more="optimizer { proximal { l1: 0.1 } }")
        self.assertIn("the objective has no gradient where it is least", self.refused(model))
        self.assertIn("l3", self.refused(model, "--set", "l3=1"))
        (self.folder / "few.csv").write_text("x0,x1,y\n1,2,0\n2,1,1\n")
        self.assertIn("are they the training data", self.refused(
            model, "--set", "optimizer={ sgd {} }", "--set", "data.train.csv.path=few.csv"))
        (self.folder / "t.svm").write_text("1 1:1 3:1\n0 2:1\n" * 50)
        job = self.job('name: "t" seed: 1 ranks: 1 batch_size: 10 rounds: 3 data { train { libsvm { path: "t.svm" } } } '
                       "model { logistic { sparse_table: true } } learning_rate { constant: 0.1 }")
        self.assertIn("of a sparse_table only the rows that occurred are there", self.refused(self.succeed(job).run_dir / "model"))
        usage = self.command("descent", "curvature", "--model", model, "--steps", "0")
        self.assertEqual(usage.returncode, 2, usage.stdout)


if __name__ == "__main__":
    unittest.main()

"""Every kind of model through a whole cluster: the same bits on one worker and on three with two servers, a model that
has learned, and `descent predict` that reads it back."""
import cmath
import random

from harness import SOURCE, ClusterTest, main

JOB = """
name: "model"
seed: 3
ranks: 4
batch_size: {batch}
epochs: {epochs}
data {{ train {{ {data} }} validation {{ {data} }} }}
model {{ {model} }}
optimizer {{ adam {{}} }}
learning_rate {{ constant: {rate} }}
{more}
"""


class ModelsTest(ClusterTest):
    def train(self, model, data, batch=8, epochs=4, rate=0.02, more=""):
        """The summary of a run, whose bits are those of another cluster's."""
        job = self.job(JOB.format(model=model, data=data, batch=batch, epochs=epochs, rate=rate, more=more))
        one, two = (self.succeed(job, servers=s, workers=w) for s, w in ((1, 1), (2, 3)))
        for sha in ("parameters_sha256", "state_sha256"):
            self.assertEqual(one.summary[sha], two.summary[sha], model)
        print(f"{model}: " + ", ".join(f"{k} {one.summary[k]:.4g}" for k in ("loss", "accuracy") if k in one.summary),
              flush=True)
        return one

    def predict(self, result, *args):
        process = self.command("descent", "predict", "--model", result.run_dir / "model", *args)
        self.assertEqual(process.returncode, 0, process.stdout)
        return [line for line in process.stdout.splitlines() if not line.startswith("descent:")]

    def write_numbers(self, rows=400):
        """y = 1 + 2 a - b + noise, whose noise is far off in one row of ten; weight 0 where it is."""
        rng = random.Random(2)
        lines = ["a,b,w,y"]
        for i in range(rows):
            a, b, far = rng.gauss(0, 1), rng.gauss(0, 1), i % 10 == 0
            y = 1 + 2 * a - b + rng.gauss(0, 0.1) + (50 if far else 0)
            lines.append(f"{a:.4f},{b:.4f},{int(not far)},{y:.4f}")
        (self.folder / "numbers.csv").write_text("\n".join(lines) + "\n")

    def write_rings(self, rows=400, rare=2):
        """Class 1 within a circle, class 0 around it, one in `rare` of class 1."""
        rng = random.Random(3)
        lines = ["a,b,y"]
        for i in range(rows):
            one = i % rare == 0
            radius, angle = (rng.uniform(0, 0.8) if one else rng.uniform(1.1, 2)), rng.uniform(0, 6.2832)
            x = cmath.rect(radius, angle)
            lines.append(f"{x.real:.4f},{x.imag:.4f},{int(one)}")
        (self.folder / "rings.csv").write_text("\n".join(lines) + "\n")

    def write_pairs(self, rows=800):
        """A user (keys 1 to 20) and an item (21 to 40): liked where both numbers are odd or both are even."""
        rng = random.Random(4)
        with open(self.folder / "pairs.svm", "w") as out:
            for _ in range(rows):
                user, item = rng.randrange(1, 21), rng.randrange(21, 41)
                out.write(f"{int(user % 2 == item % 2)} {user}:1 {item}:1\n")

    def prediction_errors(self, result, data="numbers.csv"):
        lines = (self.folder / data).read_text().splitlines()[1:]
        return [abs(float(p) - float(line.split(",")[-1]))
                for p, line in zip(self.predict(result, "--data", self.folder / data), lines)]

    def test_losses_of_numbers(self):
        self.write_numbers()
        data = 'csv { path: "numbers.csv" header: true ignore: "w" }'
        squared = self.train("linear {}", data, epochs=60)
        for loss in ("absolute {}", "quantile { tau: 0.4 }", "huber { delta: 0.5 }", "epsilon_insensitive {}"):
            robust = self.train(f"linear {{ loss {{ {loss} }} }}", data, epochs=60)
            # The far rows pull least squares by five, and the others hardly.
            near, pulled = (sorted(self.prediction_errors(r))[200] for r in (robust, squared))
            self.assertLess(near, 0.3, loss)
            self.assertGreater(pulled, 3)

    def test_weights_of_examples(self):
        self.write_numbers()
        result = self.train("linear {}", 'csv { path: "numbers.csv" header: true weight: "w" }', epochs=60)
        self.assertLess(sorted(self.prediction_errors(result))[200], 0.2)

    def test_nets(self):
        self.write_rings()
        data = 'csv { path: "rings.csv" header: true }'
        for model in ("mlp { hidden: 16 activation: LEAKY_RELU loss { logistic {} } }",
                      "mlp { hidden: 16 activation: ELU loss { squared_hinge {} } }",
                      "mlp { hidden: 16 hidden: 16 activation: GELU classes: 2 layer_norm: true residual: true }",
                      "mlp { hidden: 32 activation: SOFTPLUS initialization: ORTHOGONAL classes: 2 dropout: 0.1 }",
                      "factorization_machine { dim: 2 }"):
            result = self.train(model, data, epochs=20)
            if "machine" not in model:  # no product of two different features makes a circle
                self.assertGreater(result.summary["accuracy"], 0.95, model)
            classes = self.predict(result, "--data", self.folder / "rings.csv", "--probabilities")
            self.assertEqual(len(classes[0].split()), 3)
        number = self.train("mlp { hidden: 16 activation: TANH loss { squared {} } }",
                            'csv { path: "rings.csv" header: true }', epochs=20)
        self.assertLess(number.summary["loss"], 0.03)

    def test_rare_classes(self):
        self.write_rings(rows=2000, rare=50)
        data = 'csv { path: "rings.csv" header: true }'

        def found(more="", model="logistic {}"):
            result = self.train(model, data, epochs=8, more=more)
            classes = self.predict(result, "--data", self.folder / "rings.csv")
            return sum(int(c) for i, c in enumerate(classes) if i % 50 == 0)  # of the 40 of class 1

        self.assertEqual(found(), 0)  # a line around nothing
        self.assertGreater(found("class_weights { balanced: true }"), 10)
        self.assertEqual(found("class_weights { balanced: true }"), found("class_weights { weight: 0.5102041 weight: 25 }"))
        found(model="logistic { focal_gamma: 2 }")

    def test_by_key(self):
        self.write_pairs()
        data = 'libsvm { path: "pairs.svm" }'
        self.assertLess(self.train("logistic { sparse_table: true }", data, epochs=20).summary["accuracy"], 0.7)
        for model in ("factorization_machine { dim: 4 sparse_table: true deviation: 0.1 }",
                      "wide_deep { embedding: 8 deep { hidden: 16 } }"):
            result = self.train(model, data, epochs=20)
            self.assertGreater(result.summary["accuracy"], 0.95, model)
            self.assertEqual(len(self.predict(result, "--data", self.folder / "pairs.svm")), 800)

    def test_support_vector_machine(self):
        self.write_pairs()
        for model in ("svm { sparse_table: true }", "svm { sparse_table: true squared_hinge: true }"):
            self.train(model, 'libsvm { path: "pairs.svm" }', epochs=4)

    def test_sequences_and_images(self):
        rng = random.Random(5)
        lines = []
        for _ in range(600):  # a step up or a step down, somewhere in sixteen numbers
            up, at = rng.randrange(2), rng.randrange(3, 13)
            row = [(1 if (k >= at) == bool(up) else -1) + rng.gauss(0, 0.1) for k in range(16)]
            lines.append(",".join(f"{v:.3f}" for v in row) + f",{up}")
        (self.folder / "steps.csv").write_text("\n".join(lines) + "\n")
        data = 'csv { path: "steps.csv" }'
        for model in ("recurrent { steps: 16 units: 8 classes: 2 }",
                      "recurrent { cell: LSTM steps: 8 units: 8 loss { logistic {} } }",
                      "convolution { height: 1 width: 16 layer { filters: 8 kernel: 2 pool: MAX_POOL pool_size: 15 } "
                      "top { classes: 2 } }",
                      "convolution { height: 4 width: 4 layer { filters: 8 kernel: 3 padding: 1 pool: AVERAGE_POOL } "
                      "top { hidden: 8 classes: 2 } }"):
            result = self.train(model, data, epochs=30 if "MAX_POOL" in model else 10)
            self.assertGreater(result.summary["accuracy"], 0.95, model)
            self.assertEqual(len(self.predict(result, "--data", self.folder / "steps.csv")), 600)
        coder = self.train("autoencoder { hidden: 8 hidden: 2 hidden: 8 activation: TANH }", data, epochs=60)
        self.assertLess(coder.summary["loss"], 4)  # of 8 where nothing is known
        image = self.predict(coder, "--data", self.folder / "steps.csv")
        self.assertEqual(len(image[0].split()), 16)

    def test_counts(self):
        folder = SOURCE / "examples" / "poisson"
        summary = self.succeed(folder / "poisson.textproto").summary
        self.assertAlmostEqual(summary["objective"], 0.80208193, delta=1e-6)

    def test_frozen_tensors(self):
        self.write_rings()
        data = 'csv { path: "rings.csv" header: true }'
        result = self.train("mlp { hidden: 32 activation: RELU classes: 2 }", data, epochs=20,
                            more='frozen: "layer1/weights" frozen: "layer1/bias"')
        self.assertGreater(result.summary["accuracy"], 0.9)  # random features suffice
        import numpy
        model = numpy.load(result.run_dir / "model" / "model.npz")
        self.assertFalse(model["layer1/bias"].any())
        self.assertTrue(model["layer2/bias"].any())
        refused = self.descent_run(self.job(JOB.format(
            model="logistic {}", data=data, batch=8, epochs=1, rate=0.1, more='frozen: "w"')))
        self.assertNotEqual(refused.status, 0)
        self.assertIn('frozen: the model has no tensor "w"; it has weights, bias', refused.output + refused.logs())


if __name__ == "__main__":
    main()

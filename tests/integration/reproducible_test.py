"""One job, one model, bit for bit: for any number of servers and worker processes, under random delays."""

from harness import ClusterTest, main, write_csv, write_libsvm

MLP = """
name: "mlp"
seed: {seed}
ranks: 4
batch_size: 16
epochs: 3
block_elements: 256
data {{ train {{ csv {{ path: "train.csv" label: "y" header: true }} }} }}
model {{ mlp {{ hidden: 96 hidden: 64 activation: TANH classes: 2 }} }}
consistency {{ {consistency} }}
optimizer {{ adam {{}} }}
learning_rate {{ constant: 0.003 }}
l2: 1e-4
"""

SPARSE = """
name: "sparse"
seed: {seed}
ranks: 4
batch_size: 8
epochs: 2
data {{ train {{ libsvm {{ path: "train.svm.gz" }} }} }}
model {{ logistic {{ sparse_table: true }} }}
optimizer {{ {rule} }}
learning_rate {{ constant: 0.1 }}
l2: 1e-5
"""

# Every rule, every schedule, and proximal steps.
METHODS = [
    ("sgd {}", "cosine { initial: 0.05 final: 0.001 } warmup_rounds: 3"),
    ("momentum { dampening: 0.5 }", "step { initial: 0.05 factor: 0.5 every_epochs: 0.5 }"),
    ("nesterov {}", "exponential { initial: 0.02 factor: 0.5 epochs: 1 }"),
    ("adagrad {} proximal { l1: 1e-3 }", "inverse_sqrt { initial: 0.1 rounds: 10 }"),
    ("adadelta {}", "constant: 1"),
    ("rmsprop { centered: true momentum: 0.5 }", "polynomial { initial: 0.003 power: 1.5 }"),
    ("adam {} proximal { l1: 1e-3 non_negative: true }", "one_cycle { peak: 0.02 }"),
    ("adamw {}", "inverse_time { initial: 0.01 rounds: 20 }"),
    ("amsgrad {}", "cosine { initial: 0.01 epochs: 0.5 restarts: true growth: 2 }"),
    ("ftrl { l1: 0.01 l2: 0.01 }", "constant: 0.2"),
]


# What surrounds a rule: for the dense model, and for tables where it goes with them.
STEPS = [
    ("sgd {}", ["clip={ global_norm: 0.2 }"], True),
    ("momentum {}", ["clip={ value: 0.05 norm: 0.1 global_norm: 0.15 }"], True),
    ("lars { trust: 0.02 }", ["clip={ global_norm: 0.5 }", "l2=1e-4"], False),
    ("lamb {}", ["l2=0"], False),
    ("momentum {}", ["gradient_noise={ eta: 1e-4 }", "averaging={ from_round: 20 }"], False),
    ("nesterov {}", ["averaging={ decay: 0.9 }", "momentum_schedule={ one_cycle { peak: 0.85 initial: 0.95 } }"], False),
    ("adam {}", ["encoding=FP16"], True),
    ("adagrad {}", ["encoding=BF16", "clip={ norm: 0.1 }"], True),
    ("sgd {} proximal { group_lasso: 0.01 }", ["block_elements=2048", "learning_rate.scaling=SQUARE_ROOT"], True),
]


class ReproducibleTest(ClusterTest):
    def hashes(self, text, layouts, repeat=2, **fields):
        job = self.job(text.format(seed=fields.pop("seed", 1), **fields))
        found = {}
        for servers, workers in layouts:
            for _ in range(repeat):
                result = self.succeed(job, servers=servers, workers=workers, args=self.slow_worker())
                summary = result.summary
                found.setdefault((summary["parameters_sha256"], summary["state_sha256"]), []).append((servers, workers))
        return found

    LAYOUTS = [(s, w) for s in (1, 2, 3) for w in (1, 2, 4)]

    def test_mlp(self):
        write_csv(self.folder / "train.csv", 1237, 20)
        found = self.hashes(MLP, self.LAYOUTS, consistency="mode: SYNC")
        self.assertEqual(len(found), 1, found)
        print("mlp", *next(iter(found)))
        # The general path with the same two switches is the same mode.
        general = self.hashes(MLP, [(2, 2)], 1, consistency="mode: CUSTOM staleness: 0 apply: ROUND")
        self.assertEqual(general.keys(), found.keys())
        other = self.hashes(MLP, [(2, 2)], 1, seed=2, consistency="mode: SYNC")
        self.assertNotEqual(other.keys(), found.keys())
        # A fixed read version makes rounds with staleness reproducible too, to another model.
        stale = self.hashes(MLP, [(1, 1), (2, 3), (3, 2)], 1, consistency="mode: CUSTOM staleness: 2 apply: ROUND")
        self.assertEqual(len(stale), 1, stale)
        self.assertNotEqual(stale.keys(), found.keys())

    def test_sparse(self):
        write_libsvm(self.folder / "train.svm.gz", 3001, 1_000_000, 40)
        found = self.hashes(SPARSE, self.LAYOUTS, rule="adagrad {}")
        self.assertEqual(len(found), 1, found)
        print("sparse", *next(iter(found)))
        other = self.hashes(SPARSE, [(2, 2)], 1, seed=2, rule="adagrad {}")
        self.assertNotEqual(other.keys(), found.keys())

    def test_methods(self):
        write_csv(self.folder / "train.csv", 600, 12)
        write_libsvm(self.folder / "train.svm.gz", 400, 3000, 10)
        for rule, rate in METHODS:
            sets = (f"optimizer={{ {rule} }}", f"learning_rate={{ {rate} }}", "l2=0", "epochs=2")
            for text in (MLP.format(seed=1, consistency="mode: SYNC"), SPARSE.format(seed=1, rule="sgd {}")):
                job = self.job(text)
                summaries = [self.succeed(job, servers=s, workers=w, sets=sets).summary for s, w in ((1, 1), (3, 2))]
                for sha in ("parameters_sha256", "state_sha256"):
                    self.assertEqual(summaries[0][sha], summaries[1][sha], f"{rule}, {rate}: {sha}")

    def test_steps(self):
        write_csv(self.folder / "train.csv", 600, 12)
        write_libsvm(self.folder / "train.svm.gz", 400, 3000, 10)
        for rule, sets, tables in STEPS:
            sets = (f"optimizer={{ {rule} }}", "epochs=2", "metrics.every_rounds=5", *sets)
            texts = [MLP.format(seed=1, consistency="mode: SYNC")]
            if tables:
                texts.append(SPARSE.format(seed=1, rule="sgd {}"))
            for text in texts:
                job = self.job(text)
                summaries = [self.succeed(job, servers=s, workers=w, sets=sets).summary for s, w in ((1, 1), (3, 2))]
                for key in ("parameters_sha256", "state_sha256"):
                    self.assertEqual(summaries[0][key], summaries[1][key], f"{rule}, {sets}: {key}")
                if any(s.startswith("clip") for s in sets):
                    for summary in summaries:
                        self.assertGreater(summary["clipped"], 0)
                        self.assertLessEqual(summary["clipped"], 1)


if __name__ == "__main__":
    main()

"""Runs jobs for the experiments and reads what they leave behind. Every wait has a deadline; nothing is left running."""
import gzip
import json
import math
import os
import pathlib
import subprocess

DEADLINE = 300
IMAGES = pathlib.Path("/usr/share/datasets/fashion-mnist")
FASHION = '''data {
  root: "/usr/share/datasets/fashion-mnist"
  train      { idx { images: "train-images-idx3-ubyte.gz" labels: "train-labels-idx1-ubyte.gz" } }
  validation { idx { images: "t10k-images-idx3-ubyte.gz"  labels: "t10k-labels-idx1-ubyte.gz" } }
}'''


class Absent(Exception):
    """Data that an experiment needs are not on this machine."""


class Failed(Exception):
    """A run that should have reached its end has not."""


class Run:
    def __init__(self, process, folder):
        self.status = process.returncode
        self.output = process.stdout
        self.folder = folder
        metrics = folder / "metrics.jsonl"
        records = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        self.training = [r for r in records if r["kind"] == "training"]
        self.evaluations = [r for r in records if r["kind"] == "evaluation"]
        self.decisions = [r for r in records if r["kind"] == "decision"]
        summary = folder / "summary.json"
        self.summary = json.loads(summary.read_text()) if summary.exists() else {}

    @property
    def last(self):
        return self.evaluations[-1]

    def curve(self, field, of="evaluations", x="epoch"):
        """[x, value] of each record that has the field."""
        return [[r[x], r[field]] for r in getattr(self, of) if field in r]

    def parameters(self):
        import numpy
        with numpy.load(self.folder / "model" / "model.npz") as model:
            return {name: model[name] for name in model.files}


class Lab:
    """One experiment's folder. `small`: sizes for a test of the machinery, with which nothing is claimed."""

    def __init__(self, binaries, folder, small=False):
        self.binaries, self.folder, self.small = pathlib.Path(binaries), pathlib.Path(folder), small
        self.runs = 0

    def size(self, full, small):
        return small if self.small else full

    def run(self, job, *sets, workers=1, servers=1, own_models=False, may_fail=False):
        """`job` with the fields of `sets` ("path=value") changed, from beginning to end."""
        self.runs += 1
        path, folder = self.folder / "job.textproto", self.folder / f"run{self.runs}"
        path.write_text(job)
        command = [self.binaries / "descent", "run", path, "--plain", "--servers", servers, "--workers", workers,
                   "--run-dir", folder]
        if own_models:
            command += ["--worker-binary", self.binaries / "experiment_worker"]
        for assignment in sets:
            command += ["--set", assignment]
        # What is cut from data files serves all runs, and is gone with the folder.
        process = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 timeout=DEADLINE, env={**os.environ, "XDG_CACHE_HOME": str(self.folder.parent / "cache")})
        if process.returncode != 0 and not may_fail:
            raise Failed(f"{' '.join(sets)}: exit status {process.returncode}\n{process.stdout}")
        return Run(process, folder)

    def predict(self, run, data, *options):
        """What `descent predict` makes of a file with a run's model: its lines, and the numbers that it tells of them by name."""
        command = [self.binaries / "descent", "predict", "--model", run.folder / "model", "--data", data, *options]
        process = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=DEADLINE)
        if process.returncode != 0:
            raise Failed(f"predict {data}: exit status {process.returncode}\n{process.stderr}")
        told = process.stderr.splitlines()[-1].split(", ")[1:]
        return process.stdout.splitlines(), {name: float(value) for name, value in (part.split(" ") for part in told)}

    def fashion(self):
        if not IMAGES.exists():
            raise Absent(f"{IMAGES} (Debian: dataset-fashion-mnist)")
        return FASHION

    def shared(self, *names):
        """Files of $DESCENT_SHARED_DATA, else of the folder beside the checkout."""
        root = os.environ.get("DESCENT_SHARED_DATA")
        root = pathlib.Path(root) if root else pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
        for name in names:
            if not (root / name).exists():
                raise Absent(f"{root / name}; $DESCENT_SHARED_DATA says where else it is")
        return root


def rounded(value, digits=5):
    """Numbers, lists and maps of them with so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(v, digits) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v, digits) for v in value]
    return value


def thinned(points, most=120):
    """At most so many points, evenly by their index, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def write_csv(path, names, columns):
    with open(path, "w") as out:
        out.write(",".join(names) + "\n")
        for row in zip(*columns):
            out.write(",".join(f"{value:.6g}" for value in row) + "\n")


def first_images(source, target, count):
    """The first of Fashion-MNIST's "train" or "t10k": `target`.images and `target`.labels."""
    for kind, name in (("images-idx3", "images"), ("labels-idx1", "labels")):
        with gzip.open(IMAGES / f"{source}-{kind}-ubyte.gz") as file:
            head = file.read(4)
            shape = [int.from_bytes(file.read(4), "big") for _ in range(head[3])]
            shape[0] = count
            data = file.read(math.prod(shape))
        target.with_suffix(f".{name}").write_bytes(head + b"".join(n.to_bytes(4, "big") for n in shape) + data)

"""Runs the binaries as a user would. Every wait has a deadline; nothing is left running."""
import gzip
import json
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

BIN = pathlib.Path(os.environ["DESCENT_BINARY_DIR"])
SOURCE = pathlib.Path(os.environ["DESCENT_SOURCE_DIR"])
DEADLINE = 120


class Result:
    def __init__(self, process, run_dir):
        self.status = process.returncode
        self.output = process.stdout
        self.run_dir = pathlib.Path(run_dir)

    @property
    def summary(self):
        return json.loads((self.run_dir / "summary.json").read_text())

    @property
    def metrics(self):
        return [json.loads(line) for line in (self.run_dir / "metrics.jsonl").read_text().splitlines()]

    def logs(self):
        return "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted((self.run_dir / "logs").glob("*.log")))


class ClusterTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.runs = 0

    def command(self, *args, env=None, stdin=None, deadline=DEADLINE):
        return subprocess.run([str(BIN / args[0]), *map(str, args[1:])], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=deadline, cwd=self.folder,
                              env={**os.environ, **(env or {})}, input=stdin)

    def job(self, text, name="job.textproto"):
        path = self.folder / name
        path.write_text(text)
        return path

    def descent_run(self, job, servers=1, workers=1, sets=(), args=(), env=None, deadline=DEADLINE):
        self.runs += 1
        run_dir = self.folder / f"run{self.runs}"
        sets = [flag for assignment in sets for flag in ("--set", assignment)]
        process = self.command("descent", "run", job, "--servers", servers, "--workers", workers, "--run-dir", run_dir,
                               *sets, *args, env=env, deadline=deadline)
        return Result(process, run_dir)

    def succeed(self, *args, **kwargs):
        result = self.descent_run(*args, **kwargs)
        self.assertEqual(result.status, 0, result.output)
        return result

    def status(self, run_dir):
        """What the run's coordinator says of it; {} where none answers."""
        try:
            address = (run_dir / "coordinator.address").read_text().strip()
        except OSError:
            return {}
        out = self.command("descent", "status", address, "--json")
        return json.loads(out.stdout) if out.returncode == 0 else {}

    def slow_worker(self, mean_ms=2):
        """Flags for workers that wait at random before each batch: arrival orders differ from run to run, and no machine is
        so fast that a run is over before it is disturbed."""
        wrapper = self.folder / f"slow_worker_{mean_ms}"
        wrapper.write_text(f'#!/bin/sh\nexec "{BIN}/descent_worker" "$@" --inject-delay-ms {mean_ms}\n')
        wrapper.chmod(0o755)
        return ["--worker-binary", str(wrapper)]

    def start(self, *args):
        """A process that is killed at the end of the test, if it still runs."""
        log = open(self.folder / f"{pathlib.Path(args[0]).name}-{random.getrandbits(32)}.log", "w+")
        process = subprocess.Popen([str(BIN / args[0]), *map(str, args[1:])], stdout=log, stderr=subprocess.STDOUT,
                                   cwd=self.folder)
        process.log = lambda: pathlib.Path(log.name).read_text()

        def end():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
            log.close()

        self.addCleanup(end)
        return process

    def kill_some(self, run_dir, role):
        """The newest process of a role that a log names."""
        logs = "".join(p.read_text() for p in sorted((run_dir / "logs").glob("*.log")))
        pids = [int(p) for p in re.findall(rf"{role} \d+ on host \S+ \(pid (\d+)\)", logs)]
        for pid in reversed(pids):
            try:
                os.kill(pid, signal.SIGKILL)
                return
            except ProcessLookupError:
                pass
        self.fail(f"no {role} to kill")

    def wait_for(self, condition, process):
        """Until the condition holds, while the process lives."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            self.assertIsNone(process.poll(), process.log())
            self.assertLess(time.monotonic(), deadline, process.log())
            try:
                process.wait(0.01)
            except subprocess.TimeoutExpired:
                pass


def main():
    """As unittest.main; 77, which ctest counts as skipped, where every test was."""
    result = unittest.main(module="__main__", verbosity=2, exit=False).result
    for test, reason in result.skipped:
        print(f"SKIPPED {test}: {reason}", file=sys.stderr)
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun > 0 and len(result.skipped) == result.testsRun else 0)


def write_csv(path, rows, features, seed=1):
    """A linear two-class problem with some noise, as CSV with a header."""
    rng = random.Random(seed)
    weights = [rng.gauss(0, 1) for _ in range(features)]
    lines = [",".join([f"x{i}" for i in range(features)] + ["y"])]
    for _ in range(rows):
        x = [rng.gauss(0, 1) for _ in range(features)]
        score = sum(a * b for a, b in zip(weights, x)) + rng.gauss(0, 0.5)
        lines.append(",".join(f"{v:.5f}" for v in x) + f",{int(score > 0)}")
    path.write_text("\n".join(lines) + "\n")


def write_libsvm(path, rows, keys, nonzeros, seed=1):
    """Two classes told apart by a few frequent features among many rare ones."""
    rng = random.Random(seed)
    with (gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w")) as out:
        for _ in range(rows):
            label = rng.randrange(2)
            features = {1 + label * 5 + rng.randrange(5)}
            while len(features) < nonzeros:
                features.add(rng.randrange(20, keys))
            out.write(f"{label} " + " ".join(f"{f}:1" for f in sorted(features)) + "\n")


def write_idx(path, shape, data, kind=0x08):
    content = struct.pack(">HBB", 0, kind, len(shape)) + b"".join(struct.pack(">I", d) for d in shape) + bytes(data)
    if path.suffix == ".gz":
        content = gzip.compress(content)
    path.write_bytes(content)

"""Random deaths of real processes. A SYNC run must end by itself, with the very parameters of the undisturbed run.

  python3 tests/chaos/chaos.py BINARY_DIR [--runs N] [--seed S] [--servers N] [--workers N] [--replicas] [--keep]

Each run draws a schedule from its seed: who is killed (kill -9) or stopped (SIGSTOP, then SIGCONT), one or two at once, at a
random time, while a checkpoint is being written, or while the cluster recovers from the blow before. Exit status 0: every run
ended with status 0 and the right hash within ten times the undisturbed time. With --replicas each server has a backup, and
schedules of one kill at a time that roll back are counted.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

JOB = """
name: "chaos"
seed: 1
ranks: 4
batch_size: 32
rounds: {rounds}
block_elements: 4096
data {{ train {{ csv {{ path: "train.csv" label: "y" header: true }} }} }}
model {{ mlp {{ hidden: 256 hidden: 128 activation: TANH classes: 2 }} }}
consistency {{ mode: SYNC }}
optimizer {{ adam {{}} }}
learning_rate {{ constant: 0.001 }}
l2: 1e-4
checkpoint {{ every_rounds: 50 keep: 2 }}
cluster {{ lease_seconds: 2 }}
"""


def write_data(path):
    stream = random.Random(7)
    with open(path, "w") as file:
        file.write(",".join(f"x{i}" for i in range(20)) + ",y\n")
        for _ in range(4096):
            x = [stream.gauss(0, 1) for _ in range(20)]
            file.write(",".join(f"{v:.5f}" for v in x) + f",{int(sum(x[:5]) > x[5] * x[6])}\n")


def children(pid):
    """(pid, role) of the cluster's living processes."""
    found = []
    try:
        pids = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in map(int, pids):
        try:
            args = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            state = pathlib.Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        name = os.path.basename(args[0])
        if state == "Z":
            continue
        if name == b"descent_worker":
            found.append((child, "worker"))
        elif name == b"descent_server":
            found.append((child, "coordinator" if b"--job" in args else "server"))
    return found


class Run:
    """One `descent run` with blows."""

    def __init__(self, binaries, job, folder, servers, workers):
        self.run_dir = folder / "run"
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.checkpoints = self.run_dir / "checkpoints"
        self.output = open(folder / "output.txt", "w+")
        self.stopped = []
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [str(binaries / "descent"), "run", str(job), "--servers", str(servers), "--workers", str(workers), "--run-dir",
             str(self.run_dir)], stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True)

    def alive(self):
        return self.process.poll() is None

    def elapsed(self):
        return time.monotonic() - self.began

    def names(self):
        try:
            return os.listdir(self.checkpoints)
        except OSError:
            return []

    def generations(self):
        return sum(name.startswith("generation-") for name in self.names())

    def writing(self):
        """Whether a checkpoint is being written: its folder has a part file and no manifest."""
        for name in self.names():
            if not name.startswith("cut-"):
                continue
            try:
                files = os.listdir(self.checkpoints / name)
            except OSError:
                continue
            if files and "MANIFEST" not in files:
                return True
        return False

    def wait(self, condition, seconds):
        """Polls until the condition holds; False when the time or the run is over first."""
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.0005)
        return False

    def wake(self, now=None):
        for entry in list(self.stopped):
            pid, until = entry
            if now is None or now >= until:
                self.stopped.remove(entry)
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass

    def end(self, limit):
        """Exit status, or None: it hung and was killed."""
        while self.alive() and self.elapsed() < limit:
            self.wake(time.monotonic())
            time.sleep(0.01)
        self.wake()
        hung = self.alive()
        if hung:
            for pid, _ in children(self.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        self.output.seek(0)
        self.text = self.output.read()
        self.output.close()
        return None if hung else self.process.returncode

    def hashes(self):
        summary = json.loads((self.run_dir / "summary.json").read_text())
        return summary["parameters_sha256"], summary["state_sha256"]


def strike(run, stream, counts, when, span):
    """One blow. Counts what was really hit."""
    if when == "checkpoint":
        if not run.wait(run.writing, span):
            return
    elif when == "recovery":
        before = run.generations()
        if not run.wait(lambda: run.generations() > before, 5):
            return
        time.sleep(stream.uniform(0, 0.15))
    else:
        time.sleep(stream.uniform(0, span))
    if not run.alive():
        return
    there = children(run.process.pid)
    stopped = {pid for pid, _ in run.stopped}
    there = [(pid, role) for pid, role in there if pid not in stopped]
    role = stream.choice(["coordinator", "server", "server", "worker"])
    victims = [v for v in there if v[1] == role]
    stream.shuffle(victims)
    if not victims:
        return
    victims = victims[:1]
    if stream.random() < 0.25:
        others = [v for v in there if v not in victims]
        stream.shuffle(others)
        victims += others[:1]
    stop = stream.random() < 0.15 and when == "any"
    hit = 0
    for pid, role in victims:
        try:
            os.kill(pid, signal.SIGSTOP if stop else signal.SIGKILL)
        except ProcessLookupError:
            continue
        hit += 1
        counts[("stopped " if stop else "killed ") + role] += 1
        if stop:
            run.stopped.append((pid, time.monotonic() + stream.uniform(0.2, 5)))
    if hit and not stop:
        counts["kills: " + {"checkpoint": "mid-checkpoint", "recovery": "during a recovery", "any": "any time"}[when]] += 1
        counts["two at once"] += hit == 2
        run.kills += 1


def disturbed(args, job, folder, seed, reference, limit):
    """Runs one schedule. '' or what went wrong."""
    stream = random.Random(seed)
    run = Run(args.binaries, job, folder, args.servers, args.workers)
    run.kills = 0
    counts = collections.Counter()
    run.wait(lambda: run.generations() > 0, 10)
    for _ in range(stream.choice([1, 1, 2, 2, 3])):
        when = stream.choice(["any", "any", "checkpoint", "checkpoint"])
        before = run.kills
        strike(run, stream, counts, when, 0.8 * args.undisturbed)
        if run.kills > before and stream.random() < 0.4:
            strike(run, stream, counts, "recovery", 0)
    status = run.end(limit)
    counts["generations"] += max(0, run.generations() - 1)
    if "rolled_back_to" in (run.run_dir / "metrics.jsonl").read_text():
        counts["schedules rolled back"] += 1
        counts["schedules of one kill rolled back"] += run.kills == 1 and counts["two at once"] == 0
    problem = ""
    if status is None:
        problem = f"hung: killed after {limit:.0f} s"
    elif status != 0:
        problem = f"exit status {status}"
    elif run.hashes() != reference:
        problem = f"another model: {run.hashes()}, expected {reference}"
    return problem, run.kills, counts, run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1600)
    parser.add_argument("--replicas", action="store_true", help="the job has replicas: 1")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a run that went wrong")
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="descent-chaos-"))
    write_data(root / "train.csv")
    job = root / "job.textproto"
    job.write_text(JOB.format(rounds=args.rounds) + ("replicas: 1\n" if args.replicas else ""))

    (root / "reference").mkdir()
    run = Run(args.binaries, job, root / "reference", args.servers, args.workers)
    if run.end(120) != 0:
        print(run.text)
        sys.exit("the undisturbed run failed")
    args.undisturbed = run.elapsed()
    reference = run.hashes()
    limit = 10 * args.undisturbed
    print(f"undisturbed: {args.undisturbed:.1f} s, parameters_sha256 {reference[0]}")

    totals, effective, wrong, times, schedule = collections.Counter(), 0, [], [], 0
    seed = args.seed
    while effective < args.runs and schedule < 3 * args.runs:
        folder = root / f"run-{seed}"
        folder.mkdir()
        problem, kills, counts, run = disturbed(args, job, folder, seed, reference, limit)
        schedule += 1
        totals.update(counts)
        effective += kills > 0
        times.append(run.elapsed())
        if problem:
            wrong.append(seed)
            print(f"seed {seed}: {problem}; {dict(counts)}; {folder}")
            print("\n".join(run.text.splitlines()[-15:]))
        else:
            shutil.rmtree(folder)
        seed += 1
    times.sort()
    print(f"{effective} schedules with a kill of {schedule}; {len(wrong)} wrong {wrong if wrong else ''}")
    print(f"time: median {times[len(times) // 2]:.1f} s, worst {times[-1]:.1f} s, limit {limit:.0f} s")
    for name, count in sorted(totals.items()):
        print(f"  {name}: {count}")
    if not wrong or not args.keep:
        shutil.rmtree(root)
    sys.exit(1 if wrong or effective < args.runs else 0)


if __name__ == "__main__":
    main()

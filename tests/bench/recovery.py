"""How long a cluster needs after the kill -9 of a server: to training again, and to the first new round.

  python3 tests/bench/recovery.py BINARY_DIR [--kills N] [--megabytes M] [--replicas]

An MLP of M megabytes (64), SGD with momentum, 2 servers and 2 workers under `descent run`, a checkpoint every 20 rounds. A
server (coordinator or not, in turn) is killed at a random time. Times are from the kill to training again (the coordinator's
phase RUNNING in a new generation; with --replicas, of a server: its backup in its place) and to the first round after that. The
restart of the process is included where it is waited for. With --replicas a kill waits until every backup is synced, and
what is rolled back is counted. Status is asked every 20 ms.
"""
import argparse
import json
import pathlib
import random
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "chaos"))
from chaos import children, write_data  # noqa: E402

JOB = """
name: "recovery"
seed: 1
ranks: 2
batch_size: 1
rounds: 100000000
data {{ train {{ csv {{ path: "train.csv" label: "y" header: true }} }} }}
model {{ mlp {{ hidden: {hidden} hidden: 1024 activation: RELU classes: 2 }} }}
consistency {{ mode: SYNC }}
optimizer {{ momentum {{}} }}
learning_rate {{ constant: 0.0001 }}
checkpoint {{ every_rounds: 20 keep: 2 }}
cluster {{ lease_seconds: 5 }}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--replicas", action="store_true")
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="descent-recovery-"))
    write_data(root / "train.csv")
    (root / "job.textproto").write_text(JOB.format(hidden=args.megabytes * 1_000_000 // 4 // (1024 + 21)) +
                                      ("replicas: 1\n" if args.replicas else ""))
    run = subprocess.Popen([str(args.binaries / "descent"), "run", str(root / "job.textproto"), "--servers", "2", "--workers",
                            "2", "--max-restarts", "100000", "--run-dir", str(root / "run")],
                           stdout=open(root / "output", "w"), stderr=subprocess.STDOUT, start_new_session=True)

    def address():
        try:
            return (root / "run" / "coordinator.address").read_text().strip()
        except OSError:
            return ""

    def status():
        out = subprocess.run([str(args.binaries / "descent"), "status", address(), "--json"], capture_output=True, text=True)
        try:
            return json.loads(out.stdout)
        except ValueError:
            return {}

    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if run.poll() is not None:
                sys.exit("the run ended: " + (root / "output").read_text()[-2000:])
            s = status() if address() else {}
            if s and condition(s):
                return s
            time.sleep(0.02)
        sys.exit("waited for too long: " + (root / "output").read_text()[-2000:])

    stream = random.Random(1)
    to_running, to_round = {"server": [], "coordinator": []}, {"server": [], "coordinator": []}
    try:
        for kill in range(args.kills):
            s = wait(lambda s: s.get("phase") == "RUNNING" and int(s.get("last_cut", s.get("lastCut", 0))) > 0)
            if args.replicas:
                wait(lambda s: s.get("phase") == "RUNNING" and len(s.get("server", [])) > 1 and
                     all(server.get("synced") for server in s["server"]))
            time.sleep(stream.uniform(0.5, 1.5))
            before = status()
            generation, promotions = int(before.get("generation", 0)), int(before.get("promotions", 0))
            role = ["server", "coordinator"][kill % 2]
            victims = [pid for pid, r in children(run.pid) if r == role]
            if not victims:
                continue
            began = time.monotonic()
            os.kill(victims[0], signal.SIGKILL)
            s = wait(lambda s: s.get("phase") == "RUNNING" and (
                int(s.get("generation", 0)) > generation or int(s.get("promotions", 0)) > promotions))
            to_running[role].append(time.monotonic() - began)
            first = int(s.get("round", 0))
            wait(lambda s: int(s.get("round", 0)) > first)
            to_round[role].append(time.monotonic() - began)
        metrics = (root / "run" / "metrics.jsonl").read_text()
        print(f"rolled back {metrics.count('rolled_back_to')} times")
    finally:
        run.send_signal(signal.SIGINT)
        try:
            run.wait(60)
        except subprocess.TimeoutExpired:
            run.kill()
        shutil.rmtree(root, ignore_errors=True)
    print("| killed | kills | to training again, median / worst | to the first new round, median / worst |\n|---|---|---|---|")
    for role in to_running:
        a, b = to_running[role], to_round[role]
        if a:
            print(f"| {role} | {len(a)} | {statistics.median(a):.2f} s / {max(a):.2f} s | {statistics.median(b):.2f} s / {max(b):.2f} s |")


if __name__ == "__main__":
    main()

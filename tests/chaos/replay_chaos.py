"""Random deaths of real processes, then the run again from its recorded order: `descent replay` must end in the very bits.

  python3 tests/chaos/replay_chaos.py BINARY_DIR [--runs N] [--seed S] [--keep]

Each run draws from its seed: ASYNC, BOUNDED, CUSTOM with PUSH, or SYNC; a dense net or a sparse table whose rows decay; an
optimizer; servers and workers; and who dies (kill -9) when, as chaos.py does. Exit status 0: every run ended by itself and was
replayed to its parameters_sha256.
"""
import argparse
import collections
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import chaos

JOB = """
name: "replay-chaos"
seed: {seed}
ranks: 5
batch_size: 16
rounds: {rounds}
record_order: true
learning_rate {{ constant: 0.01 }}
l2: 1e-3
checkpoint {{ every_rounds: {every} keep: 2 }}
cluster {{ lease_seconds: 2 }}
consistency {{ {mode} }}
optimizer {{ {optimizer} }}
"""
DENSE = """
block_elements: 512
data { train { csv { path: "train.csv" label: "y" header: true } } }
model { mlp { hidden: 48 hidden: 16 activation: TANH classes: 2 } }
"""
SPARSE = """
slots: 32
data { train { libsvm { path: "train.svm" } } }
model { logistic { sparse_table: true } }
"""
MODES = ["mode: ASYNC", "mode: BOUNDED staleness: 2", "mode: BOUNDED staleness: 6",
         "mode: CUSTOM staleness: 0 apply: PUSH", "mode: CUSTOM unbounded: true apply: PUSH"]
ROUNDS = ["mode: SYNC", "mode: CUSTOM staleness: 2 apply: ROUND"]
OPTIMIZERS = ["adam {}", "momentum { momentum: 0.9 }", "adagrad {}", "sgd {}"]


def write_svm(path):
    stream = random.Random(11)
    with open(path, "w") as file:
        for _ in range(3000):
            label = stream.randrange(2)
            features = {1 + label * 5 + stream.randrange(5)}
            while len(features) < 8:
                features.add(stream.randrange(20, 3000))
            file.write(f"{label} " + " ".join(f"{f}:1" for f in sorted(features)) + "\n")


def one(args, root, seed, rounds_share=0.15):
    """Runs and replays one schedule. '' or what went wrong."""
    stream = random.Random(seed)
    folder = root / f"run-{seed}"
    folder.mkdir()
    sparse = stream.random() < 0.5
    mode = stream.choice(ROUNDS if stream.random() < rounds_share else MODES)
    optimizer = stream.choice(OPTIMIZERS)
    servers, workers = stream.choice([1, 2, 2, 3]), stream.choice([2, 3])
    job = root / f"job-{seed}.textproto"
    job.write_text(JOB.format(seed=seed, rounds=args.rounds, every=stream.choice([30, 60, 150]), mode=mode,
                              optimizer=optimizer) + (SPARSE if sparse else DENSE) + ("replicas: 1\n" if servers > 1 and args.replicas else ""))
    what = f"{'sparse' if sparse else 'dense'}, {mode}, {optimizer}, {servers} servers, {workers} workers"
    run = chaos.Run(args.binaries, job, folder, servers, workers)
    run.kills = 0
    counts = collections.Counter()
    run.wait(lambda: run.generations() > 0, 10)
    for _ in range(stream.choice([1, 2, 2, 3])):
        when = stream.choice(["any", "any", "checkpoint", "checkpoint"])
        before = run.kills
        chaos.strike(run, stream, counts, when, args.span)
        if run.kills > before and stream.random() < 0.4:
            chaos.strike(run, stream, counts, "recovery", 0)
    status = run.end(args.limit)
    generations = run.generations()
    try:
        finished = json.loads((run.run_dir / "summary.json").read_text())["result"] == "FINISHED"
    except OSError:
        finished = False
    if status != 0 and not finished:  # a blow that falls after the end costs the exit status alone
        return f"{what}: exit status {status}\n" + "\n".join(run.text.splitlines()[-10:]), run, counts, what
    replay = subprocess.run([str(args.binaries / "descent"), "replay", str(run.run_dir)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, timeout=120)
    counts["generations"] += generations
    if replay.returncode != 0:
        return f"{what}, {generations} generations: {replay.stdout}", run, counts, what
    counts["replayed: " + ("rounds" if mode in ROUNDS else "pushes")] += 1
    counts["replayed over several generations"] += generations > 1
    return "", run, counts, what


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1500)
    parser.add_argument("--span", type=float, default=1.0, help="seconds within which a blow falls")
    parser.add_argument("--limit", type=float, default=90, help="seconds that a run may take")
    parser.add_argument("--replicas", action="store_true", help="runs of two servers and more have replicas: 1")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a run that went wrong")
    args = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="descent-replay-"))
    chaos.write_data(root / "train.csv")
    write_svm(root / "train.svm")
    wrong, totals = [], collections.Counter()
    for seed in range(args.seed, args.seed + args.runs):
        problem, run, counts, what = one(args, root, seed)
        totals.update(counts)
        if problem:
            wrong.append(seed)
            print(f"seed {seed}: {problem}; {dict(counts)}", flush=True)
        else:
            print(f"seed {seed}: equal in {run.elapsed():.1f} s: {what}; {run.generations()} generations", flush=True)
            shutil.rmtree(run.run_dir.parent)
    print(f"{args.runs} runs, {len(wrong)} wrong {wrong if wrong else ''}")
    for name, count in sorted(totals.items()):
        print(f"  {name}: {count}")
    if not wrong or not args.keep:
        shutil.rmtree(root)
    else:
        print(f"kept: {root}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

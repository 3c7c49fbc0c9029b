#!/usr/bin/env python3
"""Makes diamonds.train.csv and diamonds.test.csv of ggplot2's diamonds.csv: rows shuffled, one in five for the test; cut,
color and clarity as columns of 0 and 1, numbers brought to mean 0 and variance 1 by the training rows; the label is
log(price). Rows that cannot be true (a length of 0, or above 20 mm) are left where they are, but not in the test.

  examples/diamonds_data.py diamonds.csv FOLDER
"""
import csv
import math
import pathlib
import random
import statistics
import sys

NUMBERS = ["carat", "depth", "table", "x", "y", "z"]
NAMES = ["cut", "color", "clarity"]


def main(source, folder):
    with open(source) as lines:
        diamonds = list(csv.DictReader(lines))
    random.Random(1).shuffle(diamonds)
    test, train = diamonds[: len(diamonds) // 5], diamonds[len(diamonds) // 5 :]
    test = [d for d in test if all(0 < float(d[side]) <= 20 for side in "xyz")]
    scale = {name: (statistics.fmean(values), statistics.pstdev(values))
             for name in NUMBERS for values in [[float(d[name]) for d in train]]}
    # The first value of each is what the others are measured against.
    values = [(name, value) for name in NAMES for value in sorted({d[name] for d in train})[1:]]
    header = NUMBERS + [f"{name} {value}" for name, value in values] + ["log price"]
    for name, part in (("train", train), ("test", test)):
        with open(pathlib.Path(folder) / f"diamonds.{name}.csv", "w", newline="") as out:
            table = csv.writer(out, lineterminator="\n")
            table.writerow(header)
            for d in part:
                numbers = [(float(d[n]) - scale[n][0]) / scale[n][1] for n in NUMBERS]
                table.writerow(numbers + [int(d[n] == v) for n, v in values] + [math.log(float(d["price"]))])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

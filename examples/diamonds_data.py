#!/usr/bin/env python3
"""Makes diamonds.train.csv and diamonds.test.csv of ggplot2's diamonds.csv: rows shuffled, one in five for the test, the
price as the last column. Rows that cannot be true (a length of 0, or above 20 mm) are left where they are, but not in the
test.

  examples/diamonds_data.py diamonds.csv FOLDER
"""
import csv
import pathlib
import random
import sys

COLUMNS = ["carat", "cut", "color", "clarity", "depth", "table", "x", "y", "z", "price"]


def main(source, folder):
    with open(source) as lines:
        diamonds = list(csv.DictReader(lines))
    random.Random(1).shuffle(diamonds)
    test, train = diamonds[: len(diamonds) // 5], diamonds[len(diamonds) // 5 :]
    test = [d for d in test if all(0 < float(d[side]) <= 20 for side in "xyz")]
    for name, part in (("train", train), ("test", test)):
        with open(pathlib.Path(folder) / f"diamonds.{name}.csv", "w", newline="") as out:
            table = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
            table.writeheader()
            table.writerows(part)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

#!/usr/bin/env python3
"""Makes power_plant.train.csv and power_plant.test.csv of CCPP.csv: rows shuffled, one in five for the test, columns
brought to mean 0 and variance 1 by those of the training rows. As measured they won't do for gradient descent: the
pressure, 1013 give or take 6, is nearly a multiple of the bias.

  examples/power_plant_data.py CCPP.csv FOLDER
"""
import csv
import pathlib
import random
import statistics
import sys


def main(source, folder):
    with open(source) as lines:
        header, *rows = csv.reader(lines)
    rows = [[float(x) for x in row] for row in rows]
    random.Random(1).shuffle(rows)
    test, train = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    for column in range(len(header) - 1):  # but the last, which is to be predicted
        values = [row[column] for row in train]
        mean, deviation = statistics.fmean(values), statistics.pstdev(values)
        for row in rows:
            row[column] = (row[column] - mean) / deviation
    for name, part in (("train", train), ("test", test)):
        with open(pathlib.Path(folder) / f"power_plant.{name}.csv", "w", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows([header, *part])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

"""numpy.load reads what ModelWriter wrote, and the hash of what it reads, computed here from its description alone, is
the one in model.json. Usage: numpy_load_test.py PROGRAM_THAT_WRITES_A_MODEL"""
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy

with tempfile.TemporaryDirectory() as folder:
    where = os.path.join(folder, "model")
    subprocess.run([sys.argv[1], where], check=True)
    with open(os.path.join(where, "model.json"), encoding="utf-8") as f:
        description = json.load(f)
    arrays = numpy.load(os.path.join(where, "model.npz"))
    assert sorted(arrays.files) == ["bias", "layer1/weights", "table.keys", "table.rows"], arrays.files
    weights = arrays["layer1/weights"]
    assert weights.dtype == numpy.float32 and weights.shape == (300, 200)
    assert (weights.reshape(-1) == numpy.arange(60000, dtype=numpy.float32) / 8).all()
    keys, rows = arrays["table.keys"], arrays["table.rows"]
    assert keys.dtype == numpy.uint64 and keys.shape == (5000,) and rows.shape == (5000, 3)
    assert (rows[:, 0] == (keys % 1000).astype(numpy.float32)).all()
    assert keys.max() > 2**63  # no sign is lost

    sha = hashlib.sha256()
    for tensor in description["tensors"]:
        table = tensor["kind"] == "table"
        sha.update(tensor["name"].encode() + (b"\0T" if table else b"\0D"))
        sha.update(struct.pack("<%dQ" % (1 + len(tensor["shape"])), len(tensor["shape"]), *tensor["shape"]))
        if table:
            for key, row in zip(arrays[tensor["name"] + ".keys"], arrays[tensor["name"] + ".rows"]):
                sha.update(struct.pack("<Q", int(key)) + row.astype("<f4").tobytes())
            sha.update(struct.pack("<Q", tensor["rows"]))
        else:
            sha.update(arrays[tensor["name"]].astype("<f4").tobytes())
    assert sha.hexdigest() == description["parameters_sha256"], (sha.hexdigest(), description["parameters_sha256"])
print("ok")

"""A client made by plain protobuf and gRPC takes part: registers, pulls, pushes a gradient, reads back the update."""
import importlib
import pathlib
import subprocess
import sys
import tempfile
import time

import grpc
import numpy

from harness import DEADLINE, SOURCE, ClusterTest, main

generated = tempfile.TemporaryDirectory()
subprocess.run(["protoc", f"-I{SOURCE}/proto", f"--python_out={generated.name}", f"--grpc_out={generated.name}",
                "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "descent/v1/job.proto",
                "descent/v1/features.proto", "descent/v1/parameter.proto", "descent/v1/coordinator.proto"], check=True)
sys.path.insert(0, generated.name)
from descent.v1 import coordinator_pb2 as control  # noqa: E402
from descent.v1 import coordinator_pb2_grpc as control_grpc  # noqa: E402
from descent.v1 import parameter_pb2 as wire  # noqa: E402
from descent.v1 import parameter_pb2_grpc as wire_grpc  # noqa: E402

JOB = """
name: "external"
seed: 1
ranks: 1
rounds: 1000
block_elements: 4
model { custom { name: "external" no_data: true } }
consistency { mode: ASYNC }
optimizer { sgd {} }
learning_rate { constant: 0.25 }
"""


def hash_key(key):
    mask = (1 << 64) - 1
    x = (key + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


class PlainClientTest(ClusterTest):
    def test_takes_part(self):
        port_file = self.folder / "port"
        server = self.start("descent_server", "--job", self.job(JOB), "--servers", "1", "--workers", "1", "--bind",
                            "127.0.0.1:0", "--port-file", port_file, "--run-dir", self.folder / "run")
        deadline = time.monotonic() + DEADLINE
        while not port_file.exists() or not port_file.read_text().strip():
            self.assertIsNone(server.poll(), server.log())
            self.assertLess(time.monotonic(), deadline)
        text = port_file.read_text().strip()
        address = text if ":" in text else f"127.0.0.1:{text}"
        channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        coordinator = control_grpc.CoordinatorServiceStub(channel)
        parameters = wire_grpc.ParameterServiceStub(channel)

        job = coordinator.GetJob(control.GetJobRequest(protocol=1), wait_for_ready=True, timeout=DEADLINE)
        specs = [control.TensorSpec(name="w", shape=[2, 3], decay=True,
                                    initializer=control.Initializer(kind=control.Initializer.CONSTANT, scale=1.5)),
                 control.TensorSpec(name="t", sparse=True, shape=[2])]
        stranger = coordinator.RegisterWorker(control.RegisterWorkerRequest(
            protocol=9, job_fingerprint=job.job_fingerprint + 1, host="stranger", pid=2, tensors=specs), timeout=DEADLINE)
        self.assertRegex(" ".join(stranger.mismatch), "(?i)stranger.*protocol.*1.*9")
        self.assertRegex(" ".join(stranger.mismatch), "(?i)job")
        registered = coordinator.RegisterWorker(control.RegisterWorkerRequest(
            protocol=1, job_fingerprint=job.job_fingerprint, host="python", pid=1, tensors=specs,
            numerics=control.Numerics(build="python", instruction_set="none", probe=7)), timeout=DEADLINE)
        self.assertEqual(list(registered.mismatch), [])
        news = None
        while news is None or news.phase != control.RUNNING or not news.leases:
            news = coordinator.Heartbeat(control.HeartbeatRequest(
                member=registered.member, run=registered.run, generation=registered.generation), timeout=DEADLINE)
            self.assertLess(time.monotonic(), deadline)
        lease = news.leases[0]
        envelope = wire.Envelope(protocol=1, job=job.job_fingerprint, run=registered.run,
                                 generation=news.generation, map_epoch=news.map.epoch)

        def pull(clock):
            reply = parameters.PushPull(wire.ExchangeRequest(
                envelope=envelope, request=100 + clock, pull=wire.PullPart(rank=0, clock=clock, all_dense=True)),
                timeout=DEADLINE)
            self.assertTrue(reply.pull_done, reply)
            values, at = {}, 0
            for part in reply.dense:
                n = 4 if part.block == 0 else 2
                values[part.block] = numpy.frombuffer(reply.payload, "<f4", n, at)
                at += 4 * n
            return numpy.concatenate([values[0], values[1]])

        before = pull(0)
        self.assertTrue((before == 1.5).all(), before)
        gradient = numpy.array([1, -2, 3, 4, -5, 6], "<f4")
        key = 12345
        push = wire.ExchangeRequest(
            envelope=envelope, request=1,
            push=wire.PushPart(rank=0, incarnation=wire.Incarnation(generation=lease.generation, number=lease.number),
                               clock=0, weight=[2.0], dense=[wire.DenseId(tensor=0, block=0), wire.DenseId(tensor=0, block=1)],
                               sparse=[wire.SparseId(table=1, slot=hash_key(key) % 1024, keys=1)], contributions=3),
            payload=gradient.tobytes() + numpy.array([key], "<u8").tobytes() + numpy.array([8, -8], "<f4").tobytes())
        reply = parameters.PushPull(push, timeout=DEADLINE)
        self.assertEqual((reply.ack.outcome, reply.ack.complete), (wire.APPLIED, True), reply)
        again = parameters.PushPull(push, timeout=DEADLINE)
        self.assertEqual(again.ack.outcome, wire.DUPLICATE, again)

        numpy.testing.assert_array_equal(pull(1), before - numpy.float32(0.25) * (gradient * numpy.float32(0.5)))
        reply = parameters.PushPull(wire.ExchangeRequest(
            envelope=envelope, request=9, payload=numpy.array([key], "<u8").tobytes(),
            pull=wire.PullPart(rank=0, clock=1, sparse=[wire.SparseId(table=1, slot=hash_key(key) % 1024, keys=1)])),
            timeout=DEADLINE)
        numpy.testing.assert_array_equal(numpy.frombuffer(reply.payload, "<f4"), [-1, 1])

        self.refusals(parameters, envelope, lease)
        self.assertIsNone(server.poll(), server.log())

    def refusals(self, parameters, envelope, lease):
        """What is wrong is refused by name, and the server lives on."""
        def push(payload=b"", **fields):
            fields = {"rank": 0, "clock": 1, "weight": [1.0], "contributions": 1,
                      "incarnation": wire.Incarnation(generation=lease.generation, number=lease.number), **fields}
            reply = parameters.PushPull(wire.ExchangeRequest(envelope=envelope, request=2, push=wire.PushPart(**fields),
                                                             payload=payload), timeout=DEADLINE)
            return reply.ack.message + reply.refusal.message

        block = [wire.DenseId(tensor=0, block=0)]
        self.assertRegex(push(b"123", dense=block), "(?i)(expected|wants|of) 16.*3|3.*16")
        self.assertRegex(push(b"\0" * 16, dense=[wire.DenseId(tensor=7, block=0)]), "(?i)tensor.*7|7.*tensor")
        self.assertRegex(push(b"\0" * 16, dense=block, rank=5), "(?i)rank.*5")
        stale = wire.Envelope()
        stale.CopyFrom(envelope)
        stale.generation = 99
        reply = parameters.PushPull(wire.ExchangeRequest(envelope=stale, request=3,
                                                         pull=wire.PullPart(clock=1, all_dense=True)), timeout=DEADLINE)
        self.assertIn("99", reply.ack.message + reply.refusal.message)


if __name__ == "__main__":
    main()

import math

import numpy

TITLE = "The largest stable rate under delay"
QUESTION = """
    A step w(t+1) = w(t) - eta h w(t - tau) on a quadratic of curvature h: from which eta h on does it blow up? Its characteristic polynomial, z^(tau+1) - z^tau + eta h, has its
    roots within the unit circle up to 2 sin(pi / (2 (2 tau + 1))), which is 2 without delay."""
JOB = """
name: "delay" ranks: 1
model { custom { name: "curved_quadratic" no_data: true options { key: "curvatures" value: "..." } options { key: "start" value: "1" } } }
consistency { mode: CUSTOM apply: ROUND staleness: 0 }
optimizer { sgd {} }
learning_rate { constant: 1 }
"""
VARIED = """
    `consistency.staleness`, tau, and the curvatures: 15 at once, evenly in their logarithm between one that is stable and one that is not, at first 0.01 and 2.5; after
    each run the bracket is what lies between the last that had shrunk and the first that had grown. Runs of 100 + 20 tau, 75 (2 tau + 1) and 300 (2 tau + 1) rounds; since w swings, each is made
    again a quarter of a period longer, and the larger of the two counts."""
SOURCE = "Kuruklis, 1994, for the roots; Zhang, Mitliagkas and Ré, 2019, and Giladi et al., 2020, for training with delay"
DELAYS = (0, 1, 2, 4, 8, 15, 30)


def limit(tau):
    return 2 * math.sin(math.pi / (2 * (2 * tau + 1)))


def measure(lab):
    found = {}
    for tau in lab.size(DELAYS, (0, 2)):
        low, high = 0.01, 2.5
        for rounds in (100 + 20 * tau, 75 * (2 * tau + 1), 300 * (2 * tau + 1)):
            tried = numpy.geomspace(low, high, 17)[1:-1]
            size = numpy.zeros(len(tried))
            for longer in (0, tau // 2 + 1):
                run = lab.run(JOB, "model.custom.options[curvatures]=" + ",".join(f"{h:.9g}" for h in tried),
                              f"consistency.staleness={tau}", f"rounds={rounds + longer}", own_models=True)
                size = numpy.maximum(size, numpy.abs(run.parameters()["x"]))
            grown = size > 1
            first = int(numpy.argmax(grown)) if grown.any() else len(tried)
            low, high = float(tried[first - 1]) if first > 0 else low, float(tried[first]) if first < len(tried) else high
        found[str(tau)] = [low, high]
    return found


def seen(data):
    middle = {int(t): math.sqrt(low * high) for t, (low, high) in data.items()}
    told = "; ".join(f"{m:.4f} at tau = {t} (theory {limit(t):.4f})" for t, m in middle.items())
    yield f"Largest stable eta h: {told}.", True
    worst = max(abs(m / limit(t) - 1) for t, m in middle.items())
    yield f"At worst {worst:.2%} from the theory.", worst < 0.01


def draw(data, figure):
    axes = figure.subplots()
    line = numpy.linspace(0, 31, 300)
    axes.plot(line, [limit(t) for t in line], color="C1", linewidth=1, label="2 sin(pi / (2 (2 tau + 1)))")
    taus = [int(t) for t in data]
    axes.plot(taus, [math.sqrt(low * high) for low, high in data.values()], "o", color="C0", label="measured")
    axes.set(yscale="log", xlabel="delay tau in rounds", ylabel="largest stable rate x curvature", yticks=[0.05, 0.1, 0.2, 0.5, 1, 2],
             yticklabels=["0.05", "0.1", "0.2", "0.5", "1", "2"])
    axes.legend()

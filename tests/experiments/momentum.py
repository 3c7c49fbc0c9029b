import math

TITLE = "Momentum, none and too much of it"
QUESTION = """
    A quadratic whose curvatures go from 1 to 1,000. How many steps does plain gradient descent take, and what do heavy-ball and Nesterov's momentum
    make of that? What if there is too much of it?"""
JOB = """
name: "momentum" ranks: 1 rounds: 4000
model { custom { name: "curved_quadratic" no_data: true
  options { key: "curvatures" value: "1,2.7,7.2,19,52,139,373,1000" } options { key: "start" value: "1" } } }
metrics { every_rounds: 1 }
"""
VARIED = """
    `optimizer` and `learning_rate.constant`, each as its theory has them for curvatures from mu to L: gradient descent 2 / (L + mu); heavy ball (2 / (sqrt L + sqrt mu))²
    with a momentum of ((sqrt L - sqrt mu) / (sqrt L + sqrt mu))²; Nesterov 1 / L with (sqrt L - sqrt mu) / (sqrt L + sqrt mu). Too much is 0.999 at heavy ball's rate."""
SOURCE = "Polyak, 1964; Nesterov, 1983; Goh, 2017, \"Why momentum really works\""
MU, L = 1.0, 1000.0
SMALL, LARGE = math.sqrt(MU), math.sqrt(L)
RATIO = (LARGE - SMALL) / (LARGE + SMALL)
HEAVY = (2 / (LARGE + SMALL)) ** 2
# name: rule, rate, what theory multiplies the loss with in a step
RULES = {
    "none": ("sgd {}", 2 / (L + MU), ((L - MU) / (L + MU)) ** 2),
    "heavy ball": (f"momentum {{ momentum: {RATIO ** 2} }}", HEAVY, RATIO ** 2),
    "Nesterov": (f"nesterov {{ momentum: {RATIO} }}", 1 / L, 1 - SMALL / LARGE),
    "heavy ball, 0.999": ("momentum { momentum: 0.999 }", HEAVY, 0.999),
}
END = 1e-6


def measure(lab):
    curves = {}
    for name, (rule, rate, _) in RULES.items():
        run = lab.run(JOB, f"optimizer={{ {rule} }}", f"learning_rate.constant={rate}", f"rounds={lab.size(4000, 50)}",
                      own_models=True)
        curves[name] = run.curve("loss", "training", "clock")
    return {"steps": {name: reached(points) for name, points in curves.items()},
            "factor": {name: factor(points) for name, points in curves.items()},
            "curves": {name: points[:4000:10] for name, points in curves.items()}}


def reached(points):
    """The step from which on the loss stays below END times the first; None: there is none."""
    over = [clock for clock, loss in points if loss > END * points[0][1]]
    return over[-1] + 1 if over[-1] < points[-1][0] else None


def factor(points):
    """What the loss is multiplied with in a step, from a tenth to 1e-20 of the greatest: the slope of its upper envelope."""
    most = max(loss for _, loss in points)
    peaks, least = [], 0
    for clock, loss in reversed(points):
        if loss > least:
            least = loss
            if 1e-20 * most < loss < 0.1 * most:
                peaks.append((clock, math.log(loss)))
    if len(peaks) < 2:
        return None
    return math.exp((peaks[0][1] - peaks[-1][1]) / (peaks[0][0] - peaks[-1][0]))


def seen(data):
    steps, factors = data["steps"], data["factor"]
    told = ", ".join("more than 4,000 (" + name + ")" if steps[name] is None else f"{steps[name]:,} ({name})" for name in RULES)
    yield (f"Steps until the loss stays below a millionth of the first: {told}.",
           steps["heavy ball"] < steps["none"] / 10 and steps["Nesterov"] < steps["none"] / 10 and steps["heavy ball, 0.999"] is None)
    told = ", ".join(f"{factors[name]:.4f} ({name}; theory {theory:.4f})" for name, (_, _, theory) in RULES.items())
    exact = [abs(math.log(factors[name]) / math.log(RULES[name][2]) - 1) for name in RULES if name != "Nesterov"]
    yield (f"In one step the loss is multiplied with {told}. For Nesterov's the theory has an upper bound; heavy ball's comes near only in the long run.",
           max(exact) < 0.15 and factors["Nesterov"] < RULES["Nesterov"][2])
    too_much = data["curves"]["heavy ball, 0.999"]
    most = max(loss for _, loss in too_much)
    yield (f"With 0.999 it overshoots: the loss swings for thousands of steps, after rising to {most / too_much[0][1]:.2g} times the first.",
           sum(b[1] > a[1] for a, b in zip(too_much, too_much[1:])) > 50)


def draw(data, figure):
    axes = figure.subplots()
    for name, points in data["curves"].items():
        axes.plot(*zip(*points), label=name, linewidth=1)
    axes.set(yscale="log", ylim=(1e-10, 1e6), xlabel="step", ylabel="loss")
    axes.legend()

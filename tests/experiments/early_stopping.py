from lab import first_images

TITLE = "Stopping before the net learns by heart"
QUESTION = """
    A net with more than 200,000 weights and 1,000 images. When does it get worse on images that it has not seen, and what does early stopping make of that?"""
JOB = """
name: "early" seed: 1 ranks: 2 batch_size: 25 epochs: 60
data {                           # of Fashion-MNIST: the first 1,000 images of the training set, 2,000 of the test set
  train      { idx { images: "train.images" labels: "train.labels" } }
  validation { idx { images: "test.images" labels: "test.labels" } }
}
model { mlp { hidden: 256 activation: RELU classes: 10 } }
optimizer { adam {} }
learning_rate { constant: 0.001 }
evaluation { every_epochs: 1 objective: true }
"""
VARIED = """
    `stopping`: none, and `{ early { patience: 5 restore_best: true } }`."""
SOURCE = "Prechelt, 1998"


def measure(lab):
    lab.fashion()
    for name, source, count in (("train", "train", lab.size(1000, 200)), ("test", "t10k", lab.size(2000, 200))):
        first_images(source, lab.folder / name, count)
    epochs = f"epochs={lab.size(60, 4)}"
    whole = lab.run(JOB, epochs)
    early = lab.run(JOB, epochs, "stopping={ early { patience: 5 restore_best: true } }")
    return {"train": whole.curve("objective"), "test": whole.curve("loss"), "accuracy": whole.curve("accuracy"),
            "early": {"clock": early.summary["clocks"], "loss": early.summary["loss"], "accuracy": early.summary["accuracy"],
                      "why": early.summary.get("ended_by", ""), "epochs": max(e["epoch"] for e in early.evaluations),
                      "saved_at": early.summary["evaluated_at_clock"] / 20}}


def seen(data):
    test, early = data["test"], data["early"]
    epoch, least = min(test, key=lambda p: p[1])
    yield (f"Trained for {test[-1][0]:.0f} epochs: the training loss falls to {data['train'][-1][1]:.4f}; the test loss is least after {epoch:.0f}, {least:.4f}, and "
           f"{test[-1][1]:.4f} at the end.", data["train"][-1][1] < 0.1 and test[-1][1] > 1.2 * least)
    yield (f"With early stopping training ends after {early['epochs']:.0f} epochs ({early['why']}), and the model saved has a test loss of {early['loss']:.4f}.",
           early["epochs"] < test[-1][0] / 2 and early["loss"] <= least + 0.02)
    yield (f"Accuracy hardly suffers from going on: {data['accuracy'][-1][1]:.3f} at the end, {early['accuracy']:.3f} of the model saved. The net is wrong no more often, but surer of it.",
           True)


def draw(data, figure):
    axes = figure.subplots()
    axes.plot(*zip(*data["train"]), label="training loss")
    axes.plot(*zip(*data["test"]), label="test loss")
    early = data["early"]
    axes.plot([early["saved_at"]], [early["loss"]], "o", color="C2", label="the model saved")
    axes.axvline(early["epochs"], color="C2", linestyle="--", linewidth=1, label="early stopping ends training")
    axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    axes.legend()

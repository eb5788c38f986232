"""
The moment induction forms
==========================

Test loss and the best head of each kind along the training, for five seeds. The loss waits, and falls when heads that
find what followed last time appear.
"""

from math import log

import numpy as np

from attn_guide import models, plot

runs = [models.load("induction", seed) for seed in range(5)]
step = runs[0].history["step"]
loss = np.stack([run.history["test_loss"] for run in runs])  # (seeds, measurements)


def best(score: str, layer: int) -> np.ndarray:
    """The largest score of the heads of a layer, (seeds, measurements)."""
    return np.stack([np.max([run.history[f"{score}_{layer}_{i}"] for i in range(4)], axis=0) for run in runs])


previous, induction = best("previous", 0), best("induction", 1)
falls = [int(step[np.argmax(curve < loss[0, 0] / 2)]) for curve in loss]
guess = log(runs[0].experiment.tokens)

fig = plot.figure(
    "heads-formation",
    title="The loss falls when induction heads form",
    caption=(
        "Five trainings of the model `induction`, seeds 0 to 4: thin lines, with seed 0 thick. Above, the loss "
        "on unseen "
        "sequences, in nats, with the loss of guessing dashed. Below, the largest previous-token score of "
        "layer 0 and the "
        "largest induction score of layer 1."
    ),
    size=(5.6, 5.0),
)
above, below = fig.subplots(2, 1, sharex=True)
last = step <= 250
for i in range(1, 5):
    above.plot(step[last], loss[i][last], color=plot.OUTPUT, linewidth=0.8, alpha=0.5)
    below.plot(step[last], previous[i][last], color=plot.QUERY, linewidth=0.8, alpha=0.5)
    below.plot(step[last], induction[i][last], color=plot.KEY, linewidth=0.8, alpha=0.5)
plot.curve(
    above, step[last], {"loss": loss[0][last]}, colours={"loss": plot.OUTPUT},
    theory={"guessing": np.full(last.sum(), guess)}, marks=False, ylabel="loss on the repetition",
)  # fmt: skip
plot.curve(
    below, step[last], {"induction": induction[0][last], "previous": previous[0][last]},
    colours={"induction": plot.KEY, "previous": plot.QUERY}, marks=False, xlabel="training step", ylabel="best score",
)  # fmt: skip
plot.describe(
    fig,
    f"Two line charts over {step[last][-1]} training steps. The loss of seed 0 stays near {guess:.1f} and has "
    f"halved at step "
    f"{falls[0]}; over five seeds that happens at steps {min(falls)} to {max(falls)}. At that step the best "
    f"induction score "
    f"is {induction[0][step == falls[0]][0]:.2f} and the best previous-token score "
    f"{previous[0][step == falls[0]][0]:.2f}; "
    f"at the end of training they are {induction[0][-1]:.2f} and {previous[0][-1]:.2f}.",
)

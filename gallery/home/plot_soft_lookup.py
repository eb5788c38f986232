"""
A dictionary that softens
=========================

A dictionary with four keys, asked for a direction that is not one of them, at four temperatures: from the two nearest
keys alone to the mean of everything.
"""

import numpy as np

import attn_guide as ag
from attn_guide import plot

names = ["north", "east", "south", "west"]
keys = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])  # (4, 2)
values = np.array([8.0, 14.0, 21.0, 11.0])  # (4,)
degrees = 30.0  # clockwise from north
query = np.array([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])  # (2,)
temperatures = [0.05, 0.3, 1.0, 10.0]

weights = {tau: ag.softmax(query @ keys.T, temperature=tau) for tau in temperatures}
answers = {tau: weights[tau] @ values for tau in temperatures}

fig = plot.figure(
    "home-soft-lookup",
    title="The hotter the lookup, the more every key has a say",
    caption=(
        f"Weights of a query {degrees:.0f}° east of north over four keys, at four temperatures, and the value that "
        f"the lookup returns. The values stored are {values[0]:.0f} (north), {values[1]:.0f} (east), "
        f"{values[2]:.0f} (south) and {values[3]:.0f} (west); their mean is {values.mean():.1f}."
    ),
    size=(4.8, 4.4),
)
for ax, tau in zip(fig.subplots(2, 2, sharey=True).flat, temperatures, strict=True):
    plot.bars(ax, ["N", "E", "S", "W"], weights[tau], colour=plot.WEIGHTS)
    ax.set_title(f"temperature {tau:g}", fontsize=10, loc="center")
    ax.set_xlabel(f"returns {answers[tau]:.1f}", fontsize=10)
    ax.set_ylim(0, 1.2)
plot.describe(
    fig,
    "Four bar charts of weights. "
    + " ".join(
        f"At temperature {tau:g}: "
        + ", ".join(f"{name} {w:.2f}" for name, w in zip(names, weights[tau], strict=True))
        + f", and the lookup returns {answers[tau]:.1f}."
        for tau in temperatures
    ),
)

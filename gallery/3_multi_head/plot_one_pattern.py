"""
One pattern answers one question
================================

A head gives the word before a share a of its weight and the word after the rest, and a linear map reads the answers off
what it hands over. Whatever the share, one of the two questions has no map that answers it.
"""

from itertools import permutations

import numpy as np
from scipy.optimize import linprog

from attn_guide import plot

words = 4
shares = np.linspace(0, 1, 21)


def best_margin(a: float, question: int) -> float:
    """The largest margin by which a map with entries in [-1, 1] prefers the right word to every other."""
    rows = []
    for pair in permutations(range(words), 2):
        handed_over = a * np.eye(words)[pair[0]] + (1 - a) * np.eye(words)[pair[1]]
        for wrong in set(range(words)) - {pair[question]}:
            row = np.zeros((words, words))
            row[pair[question]] -= handed_over
            row[wrong] += handed_over
            rows.append(np.append(row.ravel(), 1.0))
    bounds = [(-1, 1)] * words**2 + [(None, None)]
    return float(linprog(-np.eye(words**2 + 1)[-1], np.stack(rows), np.zeros(len(rows)), bounds=bounds).x[-1])


margins = {
    "word before": np.array([best_margin(a, 0) for a in shares]),
    "word after": np.array([best_margin(a, 1) for a in shares]),
}
both = np.minimum(*margins.values())
assert both.max() < 1e-9

fig = plot.figure(
    "heads-one-pattern",
    title="With one pattern, the word before or the word after can be read off, never both",
    caption=(
        f"All pairs of different words out of {words}. For each share, a linear program finds the map (entries between "
        "−1 and 1) with the largest margin between the right word and the best wrong one. A margin of 0 is a tie."
    ),
    size=(5.4, 3.4),
)
ax = fig.subplots()
plot.curve(
    ax, shares, margins, colours={"word before": plot.QUERY, "word after": plot.KEY}, marks=False,
    xlabel="share of the weight on the word before", ylabel="best margin",
)  # fmt: skip
plot.describe(
    fig,
    f"Line chart. For the word before the margin is 0 up to a share of 0.5 and rises to "
    f"{margins['word before'][-1]:.2f} at "
    f"1; for the word after it falls from {margins['word after'][0]:.2f} to 0 at 0.5 and stays there. The "
    f"smaller of the two "
    f"is never above {abs(both).max():.0e}.",
)

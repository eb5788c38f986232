"""
Who computes which tile, and when
=================================

The causal triangle of a sequence on four processes, cut in order and cut in zigzag. Each cell is a tile of queries and
keys; its number is the step of the ring in which it is computed, and its row says by whom.
"""

import numpy as np

from attn_guide import plot
from attn_guide.torch.ring import ring_tile

processes = 4
pieces = 2 * processes  # a piece is one row or column of the picture


def schedule(zigzag):
    """Step in which each tile of pieces is computed, -1 where it is not, and the owner of each piece."""
    held = [[r, pieces - 1 - r] if zigzag else [2 * r, 2 * r + 1] for r in range(processes)]
    steps = np.full((pieces, pieces), -1)
    for rank in range(processes):
        for step in range(processes):
            source = (rank - step) % processes
            tile = ring_tile(rank, source, 2, is_causal=True, zigzag=zigzag)  # two pieces a process: positions 0 and 1
            if tile is not None:
                for row in tile[0]:
                    for key in tile[1]:
                        if not tile[2] or key <= row:
                            steps[held[rank][row], held[source][key]] = step
    owner = {piece: rank for rank, both in enumerate(held) for piece in both}
    return steps, [owner[piece] for piece in range(pieces)]


def work(steps, owner):
    """Tiles that each process computes in each step: (steps, processes); a tile on the diagonal is half a tile."""
    tiles = np.zeros((processes, processes))
    for (row, key), step in np.ndenumerate(steps):
        if step >= 0:
            tiles[step, owner[row]] += 0.5 if row == key else 1.0
    return tiles


cuts = {"in order": schedule(False), "zigzag": schedule(True)}
tiles = {name: work(*cut) for name, cut in cuts.items()}
lasts = {name: t.max(axis=1).sum() for name, t in tiles.items()}  # everyone waits for the slowest of a step

fig = plot.figure(
    "sparse-ring-schedule",
    title=f"Zigzag parts do in {lasts['zigzag']:.0f} tiles' time what parts in order do in {lasts['in order']:.0f}",
    caption=(
        f"A causal sequence in {pieces} pieces on {processes} processes, P0 to P{processes - 1}. Rows are pieces of "
        "queries, with the process that holds them; columns are pieces of keys. The number in a tile is the step of "
        "the ring in which it is computed, from ring_tile; a tile on the diagonal is half a tile of work. Below: tiles "
        "that each process computes in all."
    ),
    size=(6.4, 5.0),
)
top, bottom = fig.subplots(2, 2, height_ratios=[3.2, 1.0])
for ax, below, (name, (steps, owner)) in zip(top, bottom, cuts.items(), strict=True):
    labels = [f"P{rank}" for rank in owner]
    plot.matrix(
        ax, np.where(steps < 0, 0, steps).astype(float), kind="weights", rows=labels, columns=labels, mask=steps >= 0,
        annotate=True, fmt=".0f", limits=(0, processes),
    )  # fmt: skip
    ax.set_title(f"cut {name}", fontsize=10, loc="center")
    plot.bars(below, [f"P{rank}" for rank in range(processes)], tiles[name].sum(axis=0), colour=plot.SCORES, fmt=".0f")
plot.describe(
    fig,
    " ".join(
        f"Cut {name}, the processes compute "
        + ", ".join(f"{t:.0f}" for t in tiles[name].sum(axis=0))
        + f" tiles; step by step the slowest takes {', '.join(f'{t:.0f}' for t in tiles[name].max(axis=1))}."
        for name in cuts
    ),
)

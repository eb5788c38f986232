"""
The family tree of attention
============================

Every mechanism of the guide, drawn from :mod:`attn_guide.taxonomy`, the list that also makes the links, the timeline
and the tests. A hollow mark would be a promise: a mechanism whose code is not written yet.
"""

from itertools import groupby

from attn_guide import plot, taxonomy

tree = {}
for axis, mechanisms in groupby(taxonomy.MECHANISMS, key=lambda mechanism: mechanism.axis):
    groups = {
        group: [{"text": m.name, "note": str(m.year), "open": not m.is_written} for m in members]
        for group, members in groupby(list(mechanisms), key=lambda mechanism: mechanism.group)
    }
    # An axis with one branch shows its leaves directly.
    tree[axis.capitalize()] = groups if len(groups) > 1 else next(iter(groups.values()))

total = len(taxonomy.MECHANISMS)
written = sum(mechanism.is_written for mechanism in taxonomy.MECHANISMS)

fig = plot.figure(
    "home-taxonomy",
    title=f"{total} mechanisms answer {len(taxonomy.AXES)} questions",
    caption=(
        f"Every mechanism of the guide with the year in which its paper first appeared; {written} of {total} "
        "run here today" + ("." if written == total else ", and a hollow mark stands for one that does not yet.")
    ),
    size=(6.1, 8.0),
)
plot.tree(fig.subplots(), tree, columns=2)
plot.describe(
    fig,
    f"A tree of {total} mechanisms. "
    + " ".join(
        f"{axis.capitalize()}: " + ", ".join(m.name for m in members) + "."
        for axis, members in groupby(taxonomy.MECHANISMS, key=lambda mechanism: mechanism.axis)
    ),
)

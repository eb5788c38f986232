"""
Who reads whose keys and values
===============================

Four query heads with four, two and one head of keys and values. Query head i reads key/value head i // (h / h_kv).
"""

from attn_guide import plot

h = 4
kinds = {"multi-head (MHA)": 4, "grouped-query (GQA)": 2, "multi-query (MQA)": 1}

fig = plot.figure(
    "heads-wiring",
    title="Sharing keys and values shrinks the cache, not the number of patterns",
    caption=(
        f"h = {h} query heads with h_kv = 4, 2 and 1 key/value heads. Query head i reads key/value head i // "
        f"(h / h_kv), "
        "as in `ag.multi_head_attention`. Only the lower row of each diagram is cached."
    ),
    size=(6.4, 4.8),
)
axes = fig.subplots(3, 1)
for ax, (name, h_kv) in zip(axes, kinds.items(), strict=True):
    nodes = {f"q{i}": {"text": f"Q {i}", "role": "query"} for i in range(h)}
    nodes |= {f"k{j}": {"text": f"K {j}, V {j}", "role": "key"} for j in range(h_kv)}
    group = h // h_kv
    lower = ["."] * (2 * h - 1)
    for j in range(h_kv):
        lower[2 * j * group + group - 1] = f"k{j}"  # below the middle of its group
    upper = " . ".join(f"q{i}" for i in range(h)).split()
    plot.flow(ax, nodes, [(f"k{i // group}", f"q{i}") for i in range(h)], [upper, lower])
    ax.set_title(f"{name}: {h_kv} key/value head{'s' if h_kv > 1 else ''} cached", loc="left", fontsize=9)
plot.describe(
    fig,
    "Three diagrams of four query heads above their key/value heads. "
    + " ".join(
        f"{name}: {h_kv} key/value head{'s' if h_kv > 1 else ''}, each read by {h // h_kv} "
        f"quer{'ies' if h // h_kv > 1 else 'y'}."
        for name, h_kv in kinds.items()
    ),
)

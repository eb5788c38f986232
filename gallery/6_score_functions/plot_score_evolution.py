"""
From a network to a product
===========================

The scores by the month of their paper's first version, which its arXiv number tells.
"""

from attn_guide import plot

papers = [
    ("1409.0473", "Additive", "Bahdanau et al.: a network"),
    ("1410.5401", "Cosine", "Graves et al.: sharpened"),
    ("1508.04025", "Dot, general, concat", "Luong et al."),
    ("1706.03762", "Scaled dot product", "Vaswani et al.: over √d"),
    ("1910.10683", "Dot, no scale", "Raffel et al.: T5"),
    ("2010.04245", "Cosine, learned scale", "Henry et al."),
    ("2111.09883", "Cosine, scale per head", "Liu et al.: Swin V2"),
]
events = [
    {"when": 2000 + int(number[:2]) + (int(number[2:4]) - 0.5) / 12, "text": name, "note": note}
    for number, name, note in papers
]

fig = plot.figure(
    "scores-evolution",
    title="The network came first, the product won, the cosine came back",
    caption="Papers by the year and month in their arXiv number, the time of their first version.",
    size=(4.8, 4.8),
)
plot.timeline(fig.subplots(), events)
plot.describe(
    fig,
    "A timeline. " + " ".join(f"{int(e['when'])}: {e['text']}, {e['note']}." for e in events),
)

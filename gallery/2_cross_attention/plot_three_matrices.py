"""
Three attentions of one translation
===================================

The trained Transformer reads an unseen number and writes it in German: who looks at whom on the way.
"""

import numpy as np
import torch

import attn_guide as ag
from attn_guide import models, plot
from attn_guide.models.pairs import START

run = models.load("transformer")
pairs, model = run.experiment.pairs, run.model
source, target = next((s, t) for s, t in pairs.tests["held_out"] if len(s) == 6 and len(t) == 5)
m, n = len(source) + 1, len(target) + 1
with torch.no_grad():
    words, read = pairs.source.encode([source]), pairs.target.encode([target])
    x = model._embed(words, model.source_embedding)
    for block in model.encoder:
        x, _, encoder, _ = block(x)
    keys_values = [block.cross_attention.keys_values(model.encoder_norm(x)) for block in model.decoder]
    y = model._embed(torch.cat([torch.tensor([[START]]), read[:, :-1]], dim=1), model.target_embedding)
    causal = torch.from_numpy(ag.causal.materialize(n))
    for block, kv in zip(model.decoder, keys_values, strict=True):
        y, _, decoder, cross = block(y, causal, source=kv)
matrices = {
    "encoder, m × m": (encoder, [*source, "‹stop›"], [*source, "‹stop›"], np.ones((m, m), bool)),
    "decoder, n × n": (decoder, ["‹start›", *target], ["‹start›", *target], ag.causal.materialize(n)),
    "cross, n × m": (cross, ["‹start›", *target], [*source, "‹stop›"], np.ones((n, m), bool)),
}

fig = plot.figure(
    "cross-three-matrices",
    title=f"Two square matrices and one of {n} × {m}: the three attentions of a translation",
    caption=(
        f'The trained Transformer (`models.load("transformer")`) on “{" ".join(source)}”, which it has not seen in '
        "training. Last block, mean of the heads. Rows are labelled by the word that the asking state has read last, "
        f"so the row of “{target[-2]}” is the one that predicts “{target[-1]}”. Hatched pairs are forbidden."
    ),
    size=(6.4, 6.9),
)
said = []
axes = fig.subplot_mosaic([["encoder, m × m", "decoder, n × n"], ["cross, n × m", "."]])
for name, (weights, rows, columns, mask) in matrices.items():
    mean = weights[0].mean(dim=0).numpy()
    plot.matrix(axes[name], mean, kind="weights", rows=rows, columns=columns, mask=mask, name=name, ink=plot.WEIGHTS,
                annotate=False)  # fmt: skip
    said.append(f"{name}: " + plot.describe_matrix(mean, rows, columns, mask=mask))
plot.describe(fig, " ".join(said))

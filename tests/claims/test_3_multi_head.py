"""Chapter 3, Multi-head attention: every claim of the chapter, measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import comb, sqrt

import numpy as np
import pytest

import attn_guide as ag

#: Published sizes: layers, heads h, key/value heads h_kv, head width d_k. Each in its paper or released configuration.
MODELS = {
    "BERT-base": {"layers": 12, "h": 12, "h_kv": 12, "d_k": 64},
    "BERT-large": {"layers": 24, "h": 16, "h_kv": 16, "d_k": 64},
    "GPT-2": {"layers": 12, "h": 12, "h_kv": 12, "d_k": 64},
    "GPT-3 175B": {"layers": 96, "h": 96, "h_kv": 96, "d_k": 128},
    "Llama 2 70B": {"layers": 80, "h": 64, "h_kv": 8, "d_k": 128},
    "Mistral 7B": {"layers": 32, "h": 32, "h_kv": 8, "d_k": 128},
}


def cache_bytes(name: str, h_kv: int | None = None, n: int = 1) -> int:
    """Return the bytes of a model's keys and values in half precision, with its own h_kv or another."""
    model = MODELS[name]
    return ag.kv_cache_bytes(model["layers"], model["h_kv"] if h_kv is None else h_kv, model["d_k"], n=n)


# ------------------------------------------------------------------------------------------------ why several heads


def best_margin(patterns: list[tuple[float, float]], words: int, questions: tuple[int, ...] = (0, 1)) -> float:
    """Return the best margin at which a linear map reads the word before (0) and after (1) from what heads hand over.

    Each head hands over ``a * (word before) + b * (word after)``, where words are one-hot and (a, b) is its pattern.
    The map has entries between -1 and 1. It answers every question about every pair of different words with a margin
    above 0, or cannot. A linear program finds the largest margin.
    """
    from scipy.optimize import linprog

    rows = []
    for before, after in permutations(range(words), 2):
        handed_over = np.concatenate([a * np.eye(words)[before] + b * np.eye(words)[after] for a, b in patterns])
        for question in questions:
            right = (before, after)[question]
            for wrong in set(range(words)) - {right}:
                row = np.zeros((len(questions), words, handed_over.size))  # margin - (right - wrong) <= 0
                row[questions.index(question), right] -= handed_over
                row[questions.index(question), wrong] += handed_over
                rows.append(np.append(row.ravel(), 1.0))
    unknowns = len(rows[0])
    found = linprog(
        np.eye(unknowns)[-1] * -1.0,
        A_ub=np.stack(rows),
        b_ub=np.zeros(len(rows)),
        bounds=[(-1, 1)] * (unknowns - 1) + [(None, None)],
    )
    return float(found.x[-1])


@pytest.mark.claim("heads-fixed-pattern")
def test_one_pattern_cannot_tell_before_from_after(claim):
    """Four words, every pair: the best linear answer to "which came before, which after", by linear programming."""
    shares = [0.1, 0.3, 0.5, 0.7, 0.9]  # the weight of the word before; the rest goes to the word after
    one = {a: [best_margin([(a, 1 - a)], 4, (q,)) for q in (0, 1)] for a in shares}
    both = [min(margins) for margins in one.values()]
    claim.check("one head: the smaller of its two best margins, by share", both, expected=0.0, tolerance=1e-9,
                why="0 is what a map of zeros has")  # fmt: skip
    claim.above("one head, share 0.9: margin for the word before", one[0.9][0], 0.1)
    claim.above("two heads (0.9, 0.1) and (0.1, 0.9): margin", best_margin([(0.9, 0.1), (0.1, 0.9)], 4), 0.1)
    claim.above(
        "with two words one head is enough: margin", min(best_margin([(0.9, 0.1)], 2, (q,)) for q in (0, 1)), 0.1
    )
    claim.note(words=4, shares=shares)


@pytest.mark.claim("heads-average-loses")
def test_the_mean_of_two_patterns_loses_who_did_it(claim):
    """The chapter's example: both sentences, with two heads and with one head that has their mean pattern."""
    w_v = np.vstack([np.eye(2), np.zeros((2, 2))])
    params = ag.MultiHeadParams(
        w_q=np.vstack([np.zeros((2, 4)), [[-2.0, 1, 2, 1]], np.zeros((1, 4))]),
        w_k=np.hstack([np.array([[0.0, 1], [0, 1], [0, 0], [1, 0]])] * 2),
        w_v=np.hstack([w_v, w_v]),
        w_o=np.array([[1.0, 0, 1, 0], [0, 1, -1, 0], [1, 0, -1, 0], [0, 1, 1, 0]]),
        num_heads=2,
    )
    outputs, mixed = [], []
    for first, last in (([2.0, 0], [0.0, 2]), ([0.0, 2], [2.0, 0])):
        x = np.array([[*first, 0, -1], [0, 0, 1, 0], [*last, 0, 1]])
        out, weights = ag.multi_head_attention(x, x, x, params, return_weights=True)
        heads = weights.mean(axis=0, keepdims=True) @ ag.split_heads(x @ params.w_v, 2)  # both with the mean pattern
        outputs.append(out[1])
        mixed.append(params.join(heads)[1])
    claim.above("two heads: difference between the sentences, third component", outputs[0][2] - outputs[1][2], 1.0)
    claim.below("one mean pattern: difference between the sentences", np.abs(mixed[0] - mixed[1]).max(), 1e-12)


SEEDS = (0, 1, 2, 3, 4)


@pytest.mark.claim("heads-two-patterns")
@pytest.mark.slow
def test_two_heads_learn_what_one_does_not(claim):
    """One attention layer, the token before and the token after: 1 and 2 heads, seeds 0 to 4, 500 unseen sequences."""
    import torch

    from attn_guide import models
    from attn_guide.models.train import fit

    runs = {h: [models.load(f"two-patterns-{h}-head{'s' * (h > 1)}", seed) for seed in SEEDS] for h in (1, 2)}
    claim.seeds += SEEDS
    both = {h: [run.results["both"] for run in found] for h, found in runs.items()}
    better = [max(run.results["before"], run.results["after"]) for run in runs[1]]
    wide = fit(models.recipe("two-patterns-1-head").with_settings(width=128), progress=None)
    claim.note(
        settings=dict(models.recipe("two-patterns-1-head").settings),
        one_before=[run.results["before"] for run in runs[1]],
        one_after=[run.results["after"] for run in runs[1]],
        parameters_wide=wide.results["parameters"],
    )
    claim.above("two heads: places with both answers right, by seed", both[2], 0.99)
    claim.below("one head: places with both answers right, by seed", both[1], 0.5)
    claim.above("one head: places with its better answer right, by seed", better, 0.9)
    claim.below("one head four times as wide: places with both answers right", wide.results["both"], 0.5)
    parameters = [run.results["parameters"] for found in runs.values() for run in found]
    claim.check("parameters of all ten", parameters, expected=parameters[0])
    experiment = runs[1][0].experiment
    with torch.no_grad():
        sequences = experiment._test
        best_two = runs[1][0].model(sequences)[0].topk(2, dim=-1).indices  # (b, n, 2 questions, 2)
    in_two = (best_two == experiment.answers(sequences)[..., None]).any(dim=-1).float().mean(dim=(0, 1)).tolist()
    claim.above("one head, seed 0: right answer among its first two, by question", in_two, 0.9)


# ------------------------------------------------------------------------------------------------ split, attend, merge


@pytest.mark.claim("heads-slices")
def test_columns_of_the_projections_are_the_heads(claim):
    """d_model = 12, h = 3, n = 5: projecting and splitting against three attentions with slices of the weights."""
    rng = claim.rng(1)
    x = rng.standard_normal((5, 12))
    params = ag.init_multi_head(12, 3, bias=False, rng=rng)
    heads = ag.scaled_dot_product_attention(*params.project(x, x, x))  # (3, 5, 4)
    own = [
        ag.self_attention(x, *(w[:, 4 * i : 4 * i + 4] for w in (params.w_q, params.w_k, params.w_v))) for i in range(3)
    ]
    claim.below("difference, head by head", np.abs(heads - np.stack(own)).max(), 1e-12, "rounding")
    claim.require("merging undoes splitting", bool((ag.merge_heads(ag.split_heads(x, 3)) == x).all()))
    claim.note(n=5, d_model=12, h=3)


@pytest.mark.claim("heads-reshape")
def test_reshaping_without_moving_the_axis_mixes_tokens(claim):
    """n = 8, d_model = 8, h = 2, causal: change the last token, and see which outputs change."""
    rng = claim.rng(2)
    x = rng.standard_normal((8, 8))
    changed = x.copy()
    changed[-1] += 1.0

    def right(a: np.ndarray) -> np.ndarray:
        return a.reshape(8, 2, 4).swapaxes(0, 1)  # (h, n, d_k)

    def wrong(a: np.ndarray) -> np.ndarray:
        return a.reshape(2, 8, 4)  # the same shape, other contents

    moved = {}
    for name, split, merge in (
        ("right", right, lambda a: a.swapaxes(0, 1).reshape(8, 8)),
        ("wrong", wrong, lambda a: a.reshape(8, 8)),
    ):
        before, after = (merge(ag.scaled_dot_product_attention(*[split(a)] * 3, is_causal=True)) for a in (x, changed))
        moved[name] = int((np.abs(before - after).max(axis=-1) > 1e-9).sum())
    claim.check("right split: outputs that change with the last token", moved["right"], expected=1, why="itself alone")
    rows_of_a_head = wrong(np.repeat(np.arange(8.0)[:, None], 8, axis=1))[0, :, 0]  # the token each row came from
    claim.check("wrong split: tokens that head 0 sees", len(set(rows_of_a_head)), expected=4, why="the first half")
    first_half = np.abs(wrong(x)[0] - wrong(np.concatenate([x[:4], rng.standard_normal((4, 8))]))[0]).max()
    claim.check("wrong split: what head 0 knows of the second half", first_half, expected=0.0)
    reference = ag.merge_heads(right(x))
    claim.above("wrong split merged the right way: difference", np.abs(ag.merge_heads(wrong(x)) - reference).max(), 0.1)


@pytest.mark.claim("heads-torch")
def test_weights_can_be_exchanged_with_pytorch(claim):
    """torch.nn.MultiheadAttention, d_model = 32, h = 4, batch 2, n = 6, double precision: outputs and weights."""
    import torch

    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(32, 4, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for p in layer.parameters():  # its biases start at 0, which would hide a mistake
            p.normal_(std=0.3)
        x = torch.randn(2, 6, 32, dtype=torch.float64)
        theirs, mean_weights = layer(x, x, x)
        _, per_head = layer(x, x, x, average_attn_weights=False)
    params = ag.MultiHeadParams.from_torch_state_dict(layer.state_dict(), num_heads=4)
    ours, weights = ag.multi_head_attention(*[x.numpy()] * 3, params, return_weights=True)
    claim.below("difference of the outputs", np.abs(ours - theirs.numpy()).max(), 1e-12, "rounding")
    claim.below("difference of the weights, head by head", np.abs(weights - per_head.numpy()).max(), 1e-12)
    claim.below("their weights by default: difference from our mean over heads",
                np.abs(weights.mean(axis=1) - mean_weights.numpy()).max(), 1e-12)  # fmt: skip
    back = torch.nn.MultiheadAttention(32, 4, batch_first=True, dtype=torch.float64)
    back.load_state_dict({name: torch.from_numpy(a) for name, a in params.to_torch_state_dict().items()})
    with torch.no_grad():
        again, _ = back(x, x, x)
    claim.require("and back: the same output to the bit", bool(torch.equal(again, theirs)))
    claim.note(shape_of_their_weights=list(mean_weights.shape), shape_of_ours=list(weights.shape))


@pytest.mark.claim("heads-qk-ov")
def test_a_head_is_two_matrices_of_low_rank(claim):
    """d_model = 24, h = 6: scores through W_Q W_K^T and outputs through W_V W_O alone, and the ranks of the two."""
    rng = claim.rng(3)
    x = rng.standard_normal((7, 24))
    params = ag.init_multi_head(24, 6, bias=False, rng=rng)
    total, ranks = np.zeros((7, 24)), []
    for i in range(6):
        at = slice(4 * i, 4 * i + 4)
        qk = params.w_q[:, at] @ params.w_k[:, at].T  # (d_model, d_model)
        ov = params.w_v[:, at] @ params.w_o[at]  # (d_model, d_model)
        total += ag.softmax(x @ qk @ x.T / sqrt(4)) @ x @ ov
        ranks += [int(np.linalg.matrix_rank(m)) for m in (qk, ov)]
    out = ag.multi_head_attention(x, x, x, params)
    claim.below("difference from the layer", np.abs(out - total).max(), 1e-12, "rounding")
    claim.check("ranks of all twelve", ranks, expected=[4] * 12, why="d_k = d_v = 4")


@pytest.mark.claim("heads-order")
def test_heads_have_no_order(claim):
    """Shuffle the heads of a layer (d_model = 24, h = 6), columns of W_Q, W_K, W_V with the rows of W_O."""
    rng = claim.rng(4)
    x = rng.standard_normal((7, 24))
    params = ag.init_multi_head(24, 6, bias=False, rng=rng)
    columns = np.arange(24).reshape(6, 4)[rng.permutation(6)].ravel()
    shuffled = ag.MultiHeadParams(
        w_q=params.w_q[:, columns], w_k=params.w_k[:, columns], w_v=params.w_v[:, columns],
        w_o=params.w_o[columns], num_heads=6,
    )  # fmt: skip
    out = ag.multi_head_attention(x, x, x, params)
    claim.below("difference", np.abs(out - ag.multi_head_attention(x, x, x, shuffled)).max(), 1e-12, "rounding")
    kept = replace(shuffled, w_o=params.w_o)
    claim.above("difference if W_O keeps its order", np.abs(out - ag.multi_head_attention(x, x, x, kept)).max(), 0.1)


@pytest.mark.claim("heads-start-apart")
def test_heads_that_start_alike_stay_alike(claim):
    """Two heads, d_model = 8, ten steps of gradient descent on a random target; the heads start equal, or not."""
    rng = claim.rng(5)
    x, target = rng.standard_normal((2, 16, 6, 8))
    apart = ag.init_multi_head(8, 2, bias=False, rng=rng)
    w_q, w_k, w_v, w_o = (
        np.concatenate([np.split(w, 2, axis=axis)[0]] * 2, axis=axis)
        for w, axis in ((apart.w_q, 1), (apart.w_k, 1), (apart.w_v, 1), (apart.w_o, 0))
    )
    alike = ag.MultiHeadParams(w_q=w_q, w_k=w_k, w_v=w_v, w_o=w_o, num_heads=2)
    distance, losses = {}, {}
    for name, params in (("alike", alike), ("apart", apart)):
        found = []
        for _ in range(10):
            error = ag.multi_head_attention(x, x, x, params) - target
            found.append(float((error**2).mean()))
            grads = ag.multi_head_attention_backward(2 * error / error.size, x, x, x, params)[-1]
            params = replace(
                params, **{w: getattr(params, w) - 2.0 * getattr(grads, w) for w in ("w_q", "w_k", "w_v", "w_o")}
            )
        one, other = np.split(params.w_q, 2, axis=1)
        distance[name], losses[name] = float(np.abs(one - other).max()), found
    claim.check("started alike: largest difference of the two heads' W_Q", distance["alike"], expected=0.0,
                tolerance=1e-12, why="rounding")  # fmt: skip
    claim.above("started apart: largest difference of the two heads' W_Q", distance["apart"], 0.1)
    claim.below("loss after ten steps over loss before, started alike", losses["alike"][-1] / losses["alike"][0], 1.0)
    claim.note(steps=10)


# ------------------------------------------------------------------------------------------------ what heads learn


@pytest.mark.claim("heads-induction")
@pytest.mark.slow
def test_previous_token_and_induction_heads_form(claim):
    """The model "induction", seeds 0 to 4: the best scores of its layers after training and before it."""
    from attn_guide import models

    runs = [models.load("induction", seed) for seed in SEEDS]
    claim.seeds += SEEDS
    scores = [run.experiment.scores() for run in runs]
    previous = [s["previous"][0].max() for s in scores]
    induction = [s["induction"][1].max() for s in scores]
    claim.note(
        settings=dict(models.recipe("induction").settings),
        parameters=runs[0].results["parameters"],
        half=runs[0].experiment.half,
        mean_previous=float(np.mean(previous)),
        mean_induction=float(np.mean(induction)),
        induction_heads=[int((s["induction"][1] > 0.8).sum()) for s in scores],
        previous_heads=[int((s["previous"][0] > 0.6).sum()) for s in scores],
        seed_0={name: s.round(4).tolist() for name, s in scores[0].items()},
    )
    claim.above("best previous-token score of layer 0, by seed", previous, 0.5)
    claim.above("best induction score of layer 1, by seed", induction, 0.8)
    before = {
        name: [max(run.history[f"{name}_{layer}_{i}"][0] for layer in (0, 1) for i in range(4)) for run in runs]
        for name in ("previous", "induction")
    }
    claim.below("best previous-token score before training, by seed", before["previous"], 0.2)
    claim.below("best induction score before training, by seed", before["induction"], 0.2)
    claim.below("best induction score of layer 0, by seed", [s["induction"][0].max() for s in scores], 0.2)
    claim.below("best previous-token score of layer 1, by seed", [s["previous"][1].max() for s in scores], 0.2)
    claim.above("right predictions on the repetition, by seed", [run.results["accuracy"] for run in runs], 0.99)
    other = [float(runs[0].experiment.scores(half)["induction"].max()) for half in (8, 16)]
    claim.above("seed 0, repeating 8 and 16 tokens: best induction score", other, 0.8)


@pytest.mark.claim("heads-one-layer")
@pytest.mark.slow
def test_one_layer_does_not_learn_to_repeat(claim):
    """The recipe of the model "induction" with one layer instead of two, seeds 0 and 1: the loss on the repetition.

    Whoever knows which tokens have come again, and nothing of their order, guesses among the others: among k of them
    for k = half - 1, ..., 1, which costs log k each.
    """
    from attn_guide import models
    from attn_guide.models.train import fit

    recipe = models.recipe("induction").with_settings(layers=1)
    runs = [fit(recipe, seed, progress=None) for seed in (0, 1)]
    claim.seeds += [0, 1]
    guess = float(np.log(recipe.settings["tokens"]))
    remaining = float(np.log(np.arange(1, runs[0].experiment.half)).mean())
    losses = [run.results["test_loss"] for run in runs]
    claim.above("loss with one layer, by seed", losses, remaining, "guessing among what has not come again")
    claim.note(guessing=guess, remaining=remaining, two_layers=models.load("induction").results["test_loss"])


def text_scores(model, rows, white: np.ndarray) -> dict[str, np.ndarray]:
    """Return each head's mean weight on the character before, on the present word and on whitespace, (layers, heads).

    Only rows with at least 16 characters before them count. The present word goes back to the last whitespace, which
    it includes. ``even`` has what even weights would give to the three.
    """
    import torch

    with torch.no_grad():
        weights = model(rows)[2].numpy()  # (b, layers, heads, n, n)
    n, late = weights.shape[-1], slice(16, None)
    is_white = white[rows.numpy()]  # (b, n)
    word = is_white.cumsum(axis=1)
    targets = {
        "previous": np.broadcast_to(np.eye(n, k=-1), (len(rows), n, n)),
        "word": (word[:, :, None] == word[:, None, :]) * np.tri(n),
        "whitespace": is_white[:, None, :] * np.tri(n),
    }  # each (b, n, n)
    found = {
        name: (weights * target[:, None, None]).sum(axis=-1)[..., late].mean(axis=(0, 3))
        for name, target in targets.items()
    }
    visible = np.arange(1, n + 1)
    found["even"] = np.array([(t.sum(axis=-1) / visible)[:, late].mean() for t in targets.values()])
    return found


@pytest.mark.claim("heads-text")
@pytest.mark.slow
def test_heads_of_a_language_model_look_at_the_present_word(claim):
    """The model "gpt" (seed 0): where its eight heads look in 60 windows of unseen text, trained and untrained."""
    from attn_guide import models

    run, recipe = models.load("gpt"), models.recipe("gpt")
    claim.seeds += [0]
    experiment = run.experiment
    rows = experiment._windows(experiment.length, 60)[:, :-1]
    white = np.isin(list(experiment.characters), [" ", "\n"])
    trained = text_scores(run.model, rows, white)
    fresh = text_scores(recipe.start(recipe.settings, 0).model.eval(), rows, white)
    even = dict(zip(("previous", "word", "whitespace"), trained["even"].tolist(), strict=True))
    claim.note(
        even=even, windows=len(rows), length=experiment.length,
        **{f"{name}_by_head": trained[name].round(4) for name in ("previous", "word", "whitespace")},
        untrained={name: float(fresh[name].max()) for name in ("previous", "word", "whitespace")},
    )  # fmt: skip
    claim.above("best previous-character score", trained["previous"].max(), 4 * even["previous"])
    claim.above("smallest weight of a head on the present word", trained["word"].min(), 2 * even["word"])
    claim.below("largest weight of a head on whitespace", trained["whitespace"].max(), 0.5)
    distance = max(abs(fresh[name] - even[name]).max() for name in even)
    claim.below("untrained heads: largest distance from even weights", distance, 0.05)


@pytest.mark.claim("heads-ablation")
@pytest.mark.slow
def test_taking_heads_out_changes_the_loss_by_this_much(claim):
    """The model "induction", seeds 0 to 4: the test loss without each head, without all but one, without a layer."""
    from attn_guide import models

    runs = [models.load("induction", seed) for seed in SEEDS]
    claim.seeds += SEEDS
    whole = np.array([run.results["test_loss"] for run in runs])
    alone = np.stack([run.experiment.ablation() for run in runs])  # (seeds, layers, heads)
    best = [int(run.experiment.scores()["previous"][0].argmax()) for run in runs]
    costliest = [int(losses[0].argmax()) for losses in alone]
    kept = np.array(
        [
            [run.experiment.without(*((1, other) for other in range(4) if other != head)) for head in range(4)]
            for run in runs
        ]
    )
    layers = np.array([[run.results[f"without_layer_{layer}"] for layer in (0, 1)] for run in runs])
    guess = float(np.log(runs[0].experiment.tokens))
    claim.note(
        loss=whole, guessing=guess, alone_seed_0=alone[0], mean_alone=float(alone.mean()), largest_alone=alone.max(),
        mean_kept=float(kept.mean()), layers_mean=layers.mean(axis=0),
        costliest_rise=[float(losses[0].max() - loss) for losses, loss in zip(alone, whole, strict=True)],
    )  # fmt: skip
    claim.above("smallest change of the loss by one head", (alone - whole[:, None, None]).min(), 0.0)
    claim.below("largest loss without one head over guessing", alone.max() / guess, 0.25)
    claim.above("loss without layer 0, by seed", layers[:, 0], guess)
    claim.above("loss without layer 1, by seed", layers[:, 1], guess)
    claim.check("seeds in which the best previous-token head is layer 0's costliest",
                sum(a == b for a, b in zip(best, costliest, strict=True)), expected=5)  # fmt: skip


@pytest.mark.claim("heads-formation")
@pytest.mark.slow
def test_the_loss_falls_when_induction_forms(claim):
    """The model "induction", seeds 0 to 4: the steps at which the loss and the head scores have gone half their way."""
    from attn_guide import models

    runs = [models.load("induction", seed) for seed in SEEDS]
    claim.seeds += SEEDS
    halves = {"loss": [], "induction": [], "previous": []}
    for run in runs:
        history = run.history
        best = {
            name: np.max([history[f"{name}_{layer}_{i}"] for i in range(4)], axis=0)
            for name, layer in (("induction", 1), ("previous", 0))
        } | {"loss": -history["test_loss"]}
        for name, curve in best.items():
            middle = (curve[0] + curve[-1]) / 2
            halves[name].append(int(history["step"][np.argmax(curve > middle)]))
    lag = np.array(halves["induction"]) - halves["loss"]
    claim.note(**{f"step of half, {name}": steps for name, steps in halves.items()})
    after = np.array(halves["previous"]) - halves["induction"]
    claim.above("steps from half of the induction score to half of the previous-token score, by seed", after, -1)
    claim.note(every=int(runs[0].history["step"][1]), steps=len(runs[0].loss))
    claim.below("steps between half of the loss and half of the induction score, by seed", np.abs(lag), 30)
    claim.above("smallest share of training left when the loss has halved",
                1 - max(halves["loss"]) / len(runs[0].loss), 0.5)  # fmt: skip


# -------------------------------------------------------------------------------------- sharing keys and values


def repeated(params: ag.MultiHeadParams) -> ag.MultiHeadParams:
    """Return the multi-head layer whose heads repeat the grouped layer's key/value heads."""
    h, h_kv = params.num_heads, params.num_kv_heads
    w_k, w_v = (
        np.repeat(w.reshape(w.shape[0], h_kv, -1), h // h_kv, axis=1).reshape(w.shape[0], -1)
        for w in (params.w_k, params.w_v)
    )
    return ag.MultiHeadParams(w_q=params.w_q, w_k=w_k, w_v=w_v, w_o=params.w_o, num_heads=h)


@pytest.mark.claim("heads-gqa-ends")
def test_grouped_heads_have_multi_head_and_multi_query_as_ends(claim):
    """d_model = 32, h = 8, n = 6: grouped attention against the multi-head layer that repeats its key/value heads."""
    rng = claim.rng(6)
    x = rng.standard_normal((6, 32))
    mha = ag.init_multi_head(32, 8, bias=False, rng=rng)
    plain = ag.scaled_dot_product_attention(*(ag.split_heads(x @ w, 8) for w in (mha.w_q, mha.w_k, mha.w_v)))
    full = ag.multi_head_attention(x, x, x, replace(mha, num_kv_heads=8))
    claim.check("h_kv = h: difference from multi-head attention",
                np.abs(full - ag.merge_heads(plain) @ mha.w_o).max(), expected=0.0, tolerance=1e-12)  # fmt: skip
    mqa = ag.init_multi_head(32, 8, num_kv_heads=1, bias=False, rng=rng)
    k, v = x @ mqa.w_k, x @ mqa.w_v  # (n, d_k): the one head
    one = [ag.scaled_dot_product_attention(q, k, v) for q in ag.split_heads(x @ mqa.w_q, 8)]
    claim.below("h_kv = 1: difference from eight queries on one key/value head",
                np.abs(ag.multi_head_attention(x, x, x, mqa) - ag.merge_heads(np.stack(one)) @ mqa.w_o).max(),
                1e-12, "rounding")  # fmt: skip
    between = []
    for h_kv in (1, 2, 4, 8):
        gqa = ag.init_multi_head(32, 8, num_kv_heads=h_kv, bias=False, rng=rng)
        same = ag.multi_head_attention(x, x, x, repeated(gqa))
        between.append(float(np.abs(ag.multi_head_attention(x, x, x, gqa) - same).max()))
    claim.below("h_kv = 1, 2, 4, 8: difference from repeated heads", between, 1e-12, "rounding")
    claim.check("key/value head of query heads 0 to 7 at h_kv = 2", [i // (8 // 2) for i in range(8)],
                expected=[0, 0, 0, 0, 1, 1, 1, 1])  # fmt: skip


@pytest.mark.claim("heads-mean-pool")
def test_pooling_heads_is_not_the_same_layer(claim):
    """Twenty random layers, d_model = 64, h = 8: mean-pool key and value heads into groups, and compare the outputs."""
    rng = claim.rng(7)
    errors = {h_kv: [] for h_kv in (1, 2, 4, 8)}
    for _ in range(20):
        x = rng.standard_normal((16, 64))
        mha = ag.init_multi_head(64, 8, bias=False, rng=rng)
        out = ag.multi_head_attention(x, x, x, mha)
        for h_kv, found in errors.items():
            w_k, w_v = (w.reshape(64, h_kv, 8 // h_kv, 8).mean(axis=2).reshape(64, -1) for w in (mha.w_k, mha.w_v))
            pooled = replace(mha, w_k=w_k, w_v=w_v, num_kv_heads=h_kv)
            found.append(np.linalg.norm(out - ag.multi_head_attention(x, x, x, pooled)) / np.linalg.norm(out))
    mean = {h_kv: float(np.mean(found)) for h_kv, found in errors.items()}
    claim.below("8 groups: relative difference", mean[8], 1e-12, "rounding")
    claim.above("4, 2 and 1 groups: relative difference", [mean[4], mean[2], mean[1]], 0.3)
    claim.above("growth from 4 to 2 and from 2 to 1 groups", [mean[2] - mean[4], mean[1] - mean[2]], 0.0)
    claim.note(layers=20)


@pytest.mark.claim("heads-mla-absorbed")
def test_latent_attention_need_not_expand_its_keys(claim):
    """MLA with d_model = 64, h = 4, d_c = 16, d_nope = 16, d_rope = 8, n = 9, causal: expanded and absorbed."""
    rng = claim.rng(8)
    params = ag.init_multi_head_latent(64, 4, d_c=16, d_nope=16, d_rope=8, rng=rng)
    x = rng.standard_normal((9, 64))
    expanded = ag.multi_head_latent_attention(x, params, is_causal=True, rope=ag.apply_rope)
    absorbed = ag.multi_head_latent_attention(x, params, is_causal=True, rope=ag.apply_rope, absorbed=True)
    claim.below("difference", np.abs(expanded - absorbed).max(), 1e-12, "rounding")
    latent, rotated = params.compress(x, ag.apply_rope)
    stored = latent.shape[-1] + rotated.shape[-1]
    claim.check("numbers stored per token", stored, expected=16 + 8, why="d_c + d_rope")
    keys = latent @ params.w_uk  # (n, h * d_nope): the keys of all heads
    claim.check("rank of the keys of all heads together", int(np.linalg.matrix_rank(keys @ keys.T)), expected=9,
                why="nine tokens")  # fmt: skip
    many = params.compress(rng.standard_normal((100, 64)), ag.apply_rope)[0] @ params.w_uk
    claim.check("the same for 100 tokens", int(np.linalg.matrix_rank(many)), expected=16, why="d_c")
    claim.note(numbers_of_multi_head=4 * (16 + 8 + 16), width_of_keys=4 * 16)


@pytest.mark.claim("heads-mla-bytes")
def test_deepseek_stores_a_latent(claim):
    """DeepSeek-V2 (60 layers, 128 heads, d_c = 512, d_rope = 64, d_nope = d_v = 128): bytes per token in float16."""
    latent = ag.kv_cache_bytes(60, 1, 512 + 64, 0)
    full = ag.kv_cache_bytes(60, 128, 128 + 64, 128)
    claim.check("KiB per token", latent / 1024, expected=67.5, why="60 * 576 * 2 bytes")
    claim.check("numbers per layer and token", latent / 60 / 2, expected=576)
    claim.check("multi-head attention of the same widths over it", full / latent, expected=128 * 320 / 576,
                tolerance=1e-9)  # fmt: skip
    claim.check("grouped attention of this size has 128-wide groups", 576 / (2 * 128), expected=2.25,
                why="as the paper says")  # fmt: skip
    claim.note(**{"KiB per token, multi-head": full / 1024})


# ------------------------------------------------------------------------------------------------ the cache


@pytest.mark.claim("heads-cache-bytes")
def test_bytes_of_the_cache_of_published_models(claim):
    """2 * layers * h_kv * d_k * 2 bytes for six published models, and a real cache of two of their layers."""
    claim.check("Llama 2 70B, KiB per token", cache_bytes("Llama 2 70B") / 1024, expected=320)
    claim.check("Llama 2 70B with 64 key/value heads", cache_bytes("Llama 2 70B", 64) / 1024, expected=2560)
    claim.check("Llama 2 70B with one", cache_bytes("Llama 2 70B", 1) / 1024, expected=40)
    for name, n in (("GPT-2", 100), ("Mistral 7B", 50)):  # what arrays of that size really take
        cache, model = ag.KVCache(), MODELS[name]
        kv = np.zeros((model["h_kv"], n, model["d_k"]), np.float16)
        cache.append(kv, kv)
        taken = model["layers"] * (cache.key.nbytes + cache.value.nbytes)
        claim.check(f"{name}: bytes of such arrays over the formula", taken / cache_bytes(name, n=n), expected=1.0)
    left_out = cache_bytes("Llama 2 70B") / (8 * 128)
    claim.check("factor missing from h_kv * length * d_k", left_out, expected=320, why="2 * 80 layers * 2 bytes")
    claim.check("the same in numbers instead of bytes", left_out / 2, expected=160, why="2 * 80 layers")
    lengths = {"BERT-base": 512, "BERT-large": 512, "GPT-2": 1024, "GPT-3 175B": 2048, "Llama 2 70B": 4096,
               "Mistral 7B": 8192}  # fmt: skip
    claim.note(
        sizes=MODELS,
        per_token={name: cache_bytes(name) / 1024 for name in MODELS},
        context=lengths,
        gib={name: cache_bytes(name, n=n) / 2**30 for name, n in lengths.items()},
        multi_head={name: cache_bytes(name, MODELS[name]["h"]) / 1024 for name in MODELS},
    )


@pytest.mark.claim("heads-reuse")
def test_shared_keys_are_read_once_for_a_group(claim):
    """One new token of Llama 2 70B at 4096 tokens, one layer: multiply-adds over numbers read from the cache."""
    h, d_k, n = 64, 128, 4096
    reuse = []
    for h_kv in (64, 8, 1):
        macs = ag.attention_flops(1, 8192, m=n, num_heads=h, num_kv_heads=h_kv, d_k=d_k).quadratic
        read = ag.kv_cache_bytes(1, h_kv, d_k, n=n) // 2
        reuse.append(macs / read)
    claim.check("multiply-adds per number read, h_kv = 64, 8, 1", reuse, expected=[1, 8, 64], why="h / h_kv")


# ------------------------------------------------------------------------------ what the number of heads changes


@pytest.mark.claim("heads-cost")
def test_heads_change_exponentials_and_score_memory_alone(claim):
    """d_model = 512, n = 512, h from 1 to 64: parameters, multiply-adds, exponentials and bytes of the scores."""
    counts = [1, 2, 4, 8, 16, 32, 64]
    cost = [ag.attention_flops(512, 512, num_heads=h) for h in counts]
    scores = [ag.attention_bytes(512, 512 // h, num_heads=h).scores for h in counts]
    claim.check("parameters", [ag.mha_param_count(512, h) for h in counts], expected=4 * 512 * 513)
    claim.check("multiply-adds", [c.macs for c in cost], expected=cost[0].macs, why="h * d_k = d_model")
    claim.check("exponentials", [c.exponentials for c in cost], expected=[h * 512**2 for h in counts])
    claim.check("KiB of scores, half precision", [s / 1024 for s in scores], expected=[512 * h for h in counts])
    claim.note(h=counts, n=512, d_model=512)


@pytest.mark.claim("heads-cost-measured")
def test_the_matrices_of_all_heads_take_memory_only_if_they_are_kept(claim):
    """ag.multi_head_attention, d_model = 128, n = 256: peak memory with 8, 16, 32 heads, weights kept or not."""
    rng = claim.rng(9)
    x = rng.standard_normal((256, 128))
    heads, matrix = [8, 16, 32], 256 * 256 * 8
    peaks = {kept: [] for kept in (True, False)}
    for h in heads:
        params = ag.init_multi_head(128, h, rng=rng)
        for kept, found in peaks.items():
            found.append(
                ag.peak_memory(lambda p=params, kept=kept: ag.multi_head_attention(x, x, x, p, return_weights=kept))
                / matrix
            )
    slope = {kept: np.diff(found) / np.diff(heads) for kept, found in peaks.items()}
    # How many heads are at work at the same moment varies from run to run, by one matrix or so on two threads.
    claim.check(
        "n x n matrices per further head, weights kept", slope[True], expected=1.0, tolerance=0.2, why="work space"
    )
    claim.below("n x n matrices per further head, weights not kept", slope[False], 0.3, why="work space")
    claim.note(heads=heads, kept=peaks[True], not_kept=peaks[False], n=256)


@pytest.mark.claim("heads-gqa-parameters")
def test_fewer_key_value_heads_are_fewer_parameters(claim):
    """Weights of an attention layer of Llama 2 70B (d_model = 8192, h = 64, d_k = 128) with 64, 8 and 1 h_kv."""
    counts = [ag.mha_param_count(8192, 64, num_kv_heads=h_kv, bias=False) for h_kv in (64, 8, 1)]
    square = 8192**2
    claim.check("in units of d_model^2", [c / square for c in counts], expected=[4, 2 + 2 / 8, 2 + 2 / 64])
    claim.note(millions=[c / 1e6 for c in counts], saved_by_eight=1 - counts[1] / counts[0])


# -------------------------------------------------------------------------------------- how wide a head must be


@pytest.mark.claim("heads-two-wide")
def test_two_components_are_enough_to_pick_any_one_key(claim):
    """64 keys on a circle, d_k = 2: a query along key j gives it nearly all weight, for a random map to keys."""
    rng = claim.rng(10)
    n, length = 64, 1200.0
    angle = 2 * np.pi * np.arange(n) / n
    k = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # (n, 2)
    target = rng.integers(n, size=n)
    weights = ag.softmax(ag.attention_scores(length * sqrt(2) * k[target], k))
    claim.above("smallest weight of the wanted key", weights[np.arange(n), target].min(), 0.99)
    claim.check("rank of the scores", int(np.linalg.matrix_rank(k[target] @ k.T)), expected=2, why="d_k")
    claim.note(n=n, largest_score=length)


def separable(n: int, d: int) -> int:
    """Return how many subsets of n points in general position in d dimensions a plane cuts off (Cover 1965)."""
    return 2 * sum(comb(n - 1, i) for i in range(d + 1)) if d < n - 1 else 2**n


@pytest.mark.claim("heads-sets")
def test_a_narrow_head_can_single_out_few_sets_of_keys(claim):
    """8 random keys: for each of their 256 sets, a linear program looks for a query that scores it above the rest."""
    from scipy.optimize import linprog

    rng = claim.rng(11)
    n, widths, found = 8, [1, 2, 3, 4, 7], []
    inside = (np.arange(2**n)[:, None] >> np.arange(n)) % 2 * 2.0 - 1  # (256, n): 1 in the set, -1 outside
    for d in widths:
        k = rng.standard_normal((n, d))
        lifted = np.hstack([k, np.ones((n, 1))])  # unknowns: the query and a threshold; scores at least 1 from it
        possible = [
            linprog(np.zeros(d + 1), A_ub=-side[:, None] * lifted, b_ub=-np.ones(n), bounds=(None, None)).status == 0
            for side in inside
        ]
        found.append(sum(possible))
    claim.check("sets found", found, expected=[separable(n, d) for d in widths], why="Cover's count")
    claim.check("all sets", 2**n, expected=separable(n, n - 1), why="d_k = n - 1 is enough")
    claim.note(n=n, widths=widths)


@pytest.mark.claim("heads-divide")
def test_the_number_of_heads_must_divide_only_if_the_width_is_not_given(claim):
    """d_model = 10 and h = 3: refused, unless d_k is said; the layer then has h * d_k = 12 joined columns."""
    rng = claim.rng(12)
    try:
        ag.init_multi_head(10, 3, rng=rng)
        message = ""
    except ValueError as error:
        message = str(error)
    claim.require("refused with a reason", "divisor of d_model" in message)
    params = ag.init_multi_head(10, 3, d_k=4, rng=rng)
    x = rng.standard_normal((5, 10))
    claim.check("joined columns", params.w_o.shape[0], expected=12)
    claim.check("shape of the output", list(ag.multi_head_attention(x, x, x, params).shape), expected=[5, 10])


@pytest.mark.claim("heads-widths")
def test_published_head_widths_have_exceptions(claim):
    """Published d_model, h, h_kv and d_k of eight models, and the share h * d_k / d_model."""
    sizes = {
        "Transformer, base": (512, 8, 8, 64),
        "GPT-3 175B": (12288, 96, 96, 128),
        "T5-11B": (1024, 128, 128, 128),
        "PaLM 540B": (18432, 48, 1, 256),
        "Falcon 7B": (4544, 71, 1, 64),
        "Falcon 40B": (8192, 128, 8, 64),
        "Llama 2 70B": (8192, 64, 8, 128),
        "Gemma 7B": (3072, 16, 16, 256),
    }
    share = {name: h * d_k / d_model for name, (d_model, h, _, d_k) in sizes.items()}
    claim.check("models whose joined heads are as wide as d_model", sum(x == 1 for x in share.values()), expected=5)
    claim.check("largest d_k", max(d_k for *_, d_k in sizes.values()), expected=256)
    claim.check("smallest joined share", min(share.values()), expected=2 / 3, tolerance=1e-9, why="PaLM")
    claim.check("largest joined share", max(share.values()), expected=16.0, why="T5-11B")
    claim.note(sizes=sizes, joined_share=share)

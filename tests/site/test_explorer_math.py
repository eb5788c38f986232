"""The arithmetic of the explorers is that of the package: each function of attention.js beside its reference.

The module runs in the browser, where readers run it, on a thousand inputs or more for each function: random ones, from
seed 0, and those at the edge of what is allowed.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guide_ext import explorer_data
from playwright.sync_api import Browser, Page
from scipy.special import ndtr

import attn_guide as ag
from attn_guide.plot import palette
from tools.serve import make_server

STATIC = Path(__file__).resolve().parents[2] / "docs" / "_static"
TOLERANCE = 1e-6
CASES = 1000

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def module_page(browser: Browser) -> Iterator[Page]:
    """A page beside the modules, which need no built site."""
    server = make_server(STATIC, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/favicon.svg")
    yield page
    page.close()
    server.shutdown()


Run = Callable[[str, list[Any]], list[Any]]


@pytest.fixture(scope="module")
def javascript(module_page: Page) -> Run:
    """Evaluate an arrow function of ``m``, the module, on each of a list of arguments."""

    def run(function: str, arguments: list[Any]) -> list[Any]:
        return module_page.evaluate(
            f"async cases => {{ const m = await import('/explorers/attention.js'); return cases.map({function}); }}",
            arguments,
        )

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def agree(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected) >= CASES
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=TOLERANCE, atol=TOLERANCE)


def rows(rng: np.random.Generator) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Rows of scores with a temperature and a mask: small, large, equal, with ties, hidden in part and altogether."""
    made = []
    for case in range(CASES):
        m = int(rng.integers(1, 13))
        x = rng.standard_normal(m) * 10.0 ** rng.uniform(-3, 3)
        if case % 5 == 0:
            x = np.round(x)
        allowed = rng.random(m) < rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.4, 0.5])
        made.append((x, float(10 ** rng.uniform(-1.5, 1.5)), allowed))
    return made


def test_softmax(javascript: Run, rng: np.random.Generator) -> None:
    cases = rows(rng)
    found = javascript("([x, t, a]) => m.softmax(x, t, a)", [[x.tolist(), t, a.tolist()] for x, t, a in cases])
    agree(found, [ag.softmax(x, temperature=t, where=a) for x, t, a in cases])
    open_rows = javascript("([x, t]) => m.softmax(x, t)", [[x.tolist(), t] for x, t, _ in cases])
    agree(open_rows, [ag.softmax(x, temperature=t) for x, t, _ in cases])


def test_log_sum_exp_and_entropy(javascript: Run, rng: np.random.Generator) -> None:
    cases = rows(rng)
    agree(
        javascript("x => m.logSumExp(x)", [x.tolist() for x, _, _ in cases]), [ag.log_sum_exp(x) for x, _, _ in cases]
    )
    weights = [ag.softmax(x, temperature=t, where=a) for x, t, a in cases]
    agree(javascript("p => m.entropy(p)", [w.tolist() for w in weights]), [ag.attention_entropy(w) for w in weights])


def test_jacobian_and_its_norm(javascript: Run, rng: np.random.Generator) -> None:
    cases = [(ag.softmax(x, temperature=t), t) for x, t, _ in rows(rng)]
    sent = [[p.tolist(), t] for p, t in cases]
    agree(
        javascript("([p, t]) => m.softmaxJacobian(p, t)", sent),
        [ag.softmax_jacobian(p, temperature=t) for p, t in cases],
    )
    agree(
        javascript("([p, t]) => m.frobenius(m.softmaxJacobian(p, t))", sent),
        [np.linalg.norm(ag.softmax_jacobian(p, temperature=t)) for p, t in cases],
    )


def test_attention(javascript: Run, rng: np.random.Generator) -> None:
    sent, expected = [], []
    for _ in range(CASES):
        n, m, d_k, d_v = rng.integers(1, 6, 4)
        q, k, v = rng.standard_normal((n, d_k)), rng.standard_normal((m, d_k)), rng.standard_normal((m, d_v))
        allowed = rng.random((n, m)) < 0.7
        out, weights = ag.scaled_dot_product_attention(q, k, v, allowed, return_weights=True)
        expected.append((ag.attention_scores(q, k, allowed), weights, out))
        sent.append([x.tolist() for x in (q, k, v, allowed)])
    found = javascript(
        "([q, k, v, a]) => { const r = m.attention(q, k, v, {allowed: a}); return [r.scores, r.weights, r.output]; }",
        sent,
    )
    for part in range(3):
        agree([one[part] for one in found], [one[part] for one in expected])


def test_self_attention(javascript: Run, rng: np.random.Generator) -> None:
    sent, expected = [], []
    for _ in range(CASES):
        n, d, d_k, d_v = rng.integers(1, 6, 4)
        shapes = ((n, d), (d, d_k), (d, d_k), (d, d_v))
        x, *projections = (rng.standard_normal(shape) for shape in shapes)
        expected.append(ag.self_attention(x, *projections))
        sent.append([x.tolist() for x in (x, *projections)])
    agree(javascript("a => m.selfAttention(...a).output", sent), expected)


def masks(rng: np.random.Generator, n: int) -> list[tuple[str, ag.Mask]]:
    """Each predicate in JavaScript and in Python, with parameters drawn for n positions."""
    a, b, c = (int(x) for x in rng.integers(0, n + 2, 3))
    step = int(rng.integers(1, 5))
    ids = rng.integers(0, 3, n).tolist()
    table = np.sort(rng.permuted(np.tile(np.arange(n), (n, 1)), axis=1)[:, : min(2, n)])
    drawn = ag.Mask(lambda _b, _h, i, j: (table[i] == np.asarray(j)[..., None]).any(-1), name="drawn")
    return [
        ("m.predicates.full()", ag.full),
        ("m.predicates.causal()", ag.causal),
        (f"m.predicates.sliding_window({a}, {b})", ag.sliding_window(a, b)),
        (f"m.predicates.dilated_window({a}, {b}, {step})", ag.dilated_window(a, b, step)),
        (f"m.predicates.strided({step})", ag.strided(step)),
        (f"m.predicates.block_local({step})", ag.block_local(step)),
        (f"m.predicates.prefix({c})", ag.prefix(c)),
        (f"m.predicates.sinks({c})", ag.sinks(c)),
        (f"m.predicates.global_tokens({c})", ag.global_tokens(range(c))),
        (f"m.predicates.document({ids})", ag.document(ids)),
        (f"m.predicates.keys({table.tolist()})", drawn),
    ]


def composed(rng: np.random.Generator, n: int) -> tuple[str, ag.Mask]:
    """Up to three predicates, some negated, joined from left to right."""
    every = masks(rng, n)
    chosen = [every[i] for i in rng.integers(0, len(every), rng.integers(1, 4))]
    chosen = [(f"m.opposite({js})", ~mask) if rng.random() < 0.25 else (js, mask) for js, mask in chosen]

    def join(one: tuple[str, ag.Mask], other: tuple[str, ag.Mask]) -> tuple[str, ag.Mask]:
        if rng.random() < 0.5:
            return f"m.both({one[0]}, {other[0]})", one[1] & other[1]
        return f"m.either({one[0]}, {other[0]})", one[1] | other[1]

    return reduce(join, chosen)


def test_every_predicate_on_every_pair(javascript: Run, rng: np.random.Generator) -> None:
    cases = [(*pair, n) for n in range(1, 13) for _ in range(9) for pair in masks(rng, n)]
    calls = ", ".join(f"() => m.materialize({js}, {n})" for js, _, n in cases)
    found = javascript(f"(_, i) => [{calls}][i]()", [0] * len(cases))
    agree(found, [mask.materialize(n) for _, mask, n in cases])


def test_composed_masks_their_tiles_and_what_they_reach(javascript: Run, rng: np.random.Generator) -> None:
    cases = [(*composed(rng, n), n, layers, block) for n, layers, block in zip(
        rng.integers(1, 13, CASES), rng.integers(0, 5, CASES), rng.integers(1, 5, CASES), strict=True
    )]  # fmt: skip
    calls = ", ".join(f"() => m.materialize({js}, {n})" for js, _, n, _, _ in cases)
    found = javascript(
        f"([i, layers, b]) => {{ const made = [{calls}][i](); "
        "return {made, count: m.countAllowed(made), reached: m.reachability(made, layers), "
        "tiles: m.tilesTouched(made, b)}; }",
        [[i, int(case[3]), int(case[4])] for i, case in enumerate(cases)],
    )
    agree([one["made"] for one in found], [mask.materialize(n) for _, mask, n, _, _ in cases])
    agree([one["count"] for one in found], [mask.count(n) for _, mask, n, _, _ in cases])
    agree([one["reached"] for one in found], [ag.reachability(mask, n, layers) for _, mask, n, layers, _ in cases])
    tiles = []
    for _, mask, n, _, b in cases:
        padded = np.zeros((-(-n // b) * b,) * 2, bool)
        padded[:n, :n] = mask.materialize(n)
        tiles.append(padded.reshape(len(padded) // b, b, -1, b).any(axis=(1, 3)).sum())
    agree([one["tiles"] for one in found], tiles)


def test_patterns_are_counted_without_a_matrix(javascript: Run, rng: np.random.Generator) -> None:
    sent, expected = [], []
    for case in range(CASES):
        n = int(rng.integers(1, 40)) if case else 3000
        window, step, stride = int(rng.integers(0, 9)), int(rng.integers(1, 4)), int(rng.integers(1, 9))
        tokens, causal = int(rng.integers(0, 5)), bool(rng.integers(0, 2))
        table = np.sort(rng.permuted(np.tile(np.arange(min(n, 60)), (n, 1)), axis=1)[:, :2]) if case % 2 else None
        mask = ag.dilated_window(window, window, step) | ag.strided(stride) | ag.global_tokens(range(min(tokens, n)))
        if table is not None:
            mask = mask | ag.Mask(lambda b, h, i, j, t=table: (t[i] == np.asarray(j)[..., None]).any(-1), name="drawn")
        expected.append((mask & ag.causal if causal else mask).count(n))
        sent.append([n, window, step, stride, tokens, causal, None if table is None else table.tolist()])
    found = javascript(
        "([n, w, d, s, tokens, causal, table]) => m.countPattern("
        "m.either(m.predicates.dilated_window(w, w, d), m.predicates.strided(s)), {n, tokens, causal, table})",
        sent,
    )
    agree(found, expected)


def test_costs(javascript: Run, rng: np.random.Generator) -> None:
    cases = [(int(n), int(d), int(v), int(p)) for n, d, v, p in rng.integers(1, 5000, (CASES, 4))]
    flops = [ag.attention_flops(n, d, d_k=d, d_v=v, pairs=p).quadratic * 2 for n, d, v, p in cases]
    agree(javascript("([n, d, v, p]) => m.pairFlops(p, d, v)", [list(c) for c in cases]), flops)
    found = javascript(
        "([n, d, v]) => { const b = m.attentionBytes(n, d, {dV: v}); return [b.linear, b.scores]; }",
        [list(c[:3]) for c in cases],
    )
    sizes = [ag.attention_bytes(n, d, d_v=v) for n, d, v, _ in cases]
    agree(found, [[s.linear, s.scores] for s in sizes])


def test_every_step_of_the_online_softmax(javascript: Run, rng: np.random.Generator) -> None:
    sent, expected = [], []
    for _ in range(CASES):
        m, block = int(rng.integers(1, 9)), int(rng.integers(1, 5))
        scores = np.where(rng.random(m) < 0.2, -np.inf, rng.standard_normal(m) * 10 ** rng.uniform(-1, 3))
        value = rng.standard_normal((m, 2))
        steps = list(ag.online_softmax(scores, value, block_size=block))
        expected.append([[float(s.running_max), float(s.rescale), float(s.running_sum), *s.result] for s in steps])
        sent.append([scores.tolist(), value.tolist(), block])
    found = javascript(
        """([s, v, b]) => {
          let state = m.emptyState(2);
          const steps = [];
          for (let i = 0; i < s.length; i += b) {
            state = m.onlineStep(state, s.slice(i, i + b), v.slice(i, i + b));
            steps.push([state.max, state.rescale, state.sum, ...m.onlineResult(state)]);
          }
          return steps;
        }""",
        sent,
    )
    agree(found, expected)


def test_all_six_scores(javascript: Run, rng: np.random.Generator) -> None:
    sent, expected = [], []
    for case in range(CASES):
        d, d_a = (int(x) for x in rng.integers(1, 5, 2))
        q, k = rng.standard_normal((2, d)) * 10 ** rng.uniform(-2, 2)
        if case % 50 == 0:
            q = np.zeros(d)
        general, w_q, w_k = (rng.standard_normal(shape) for shape in ((d, d), (d, d_a), (d, d_a)))
        both, v = rng.standard_normal((2 * d, d_a)), rng.standard_normal(d_a)
        expected.append(
            [
                float(score[0, 0])
                for score in (
                    ag.dot_score([q], [k]),
                    ag.scaled_dot_score([q], [k]),
                    ag.general_score([q], [k], general),
                    ag.additive_score([q], [k], w_q, w_k, v),
                    ag.concat_score([q], [k], both, v),
                    ag.cosine_score([q], [k], scale=4.0),
                )
            ]
        )
        sent.append([x.tolist() for x in (q, k, general, w_q, w_k, both, v)])
    found = javascript(
        "([q, k, g, wq, wk, c, v]) => [m.dotScore(q, k), m.scaledDotScore(q, k), m.generalScore(q, k, g), "
        "m.additiveScore(q, k, wq, wk, v), m.concatScore(q, k, c, v), m.cosineScore(q, k, 4)]",
        sent,
    )
    agree(found, expected)


def test_gumbel_softmax_and_its_largest(javascript: Run, rng: np.random.Generator) -> None:
    sent, soft, hard = [], [], []
    for case in range(CASES):
        logits, t = rng.standard_normal(int(rng.integers(1, 9))) * 2, float(10 ** rng.uniform(-1, 1))
        noise = ag.gumbel_noise(logits.shape, np.random.default_rng(case))
        soft.append(ag.gumbel_softmax(logits, temperature=t, rng=np.random.default_rng(case)))
        hard.append(int(np.argmax(soft[-1])))
        sent.append([logits.tolist(), noise.tolist(), t])
    agree(javascript("([z, g, t]) => m.gumbelSoftmax(z, g, t)", sent), soft)
    agree(javascript("([z, g]) => m.argmax(z.map((x, i) => x + g[i]))", sent), hard)
    levels = [float(u) for u in (np.arange(CASES) + 0.5) / CASES]
    agree(javascript("u => m.gumbel(u)", levels), [-np.log(-np.log(u)) for u in levels])


def test_sparsemax(javascript: Run, rng: np.random.Generator) -> None:
    cases = [x for x, _, _ in rows(rng)]
    agree(javascript("x => m.sparsemax(x)", [x.tolist() for x in cases]), [ag.sparsemax(x) for x in cases])


def test_random_numbers_are_uniform_and_normal(javascript: Run) -> None:
    """Kolmogorov and Smirnov's distance of 20,000 numbers, below its 0.1 % point, for each of five seeds."""
    count, limit = 20_000, 1.95 / np.sqrt(20_000)
    draws = "([seed, kind]) => { const draw = m[kind](seed); return Array.from({length: " + str(count) + "}, draw); }"
    for kind, distribution in (("uniform", lambda x: x), ("normal", ndtr)):
        for numbers in javascript(draws, [[seed, kind] for seed in range(5)]):
            expected = distribution(np.sort(numbers))
            assert np.abs(expected - (np.arange(count) + 0.5) / count).max() < limit
        again = javascript(draws, [[3, kind], [3, kind]])
        assert again[0] == again[1]


def test_random_keys_are_distinct_and_in_range(javascript: Run) -> None:
    for r, n, m in itertools.product((0, 1, 3, 9), (1, 8), (1, 8)):
        (table,) = javascript("([r, n, m2]) => m.randomKeys(r, n, m2, 7)", [[r, n, m]])
        assert len(table) == n
        assert all(len(set(row)) == len(row) == min(r, m) and set(row) <= set(range(m)) for row in table)


def test_weights_are_packed_into_text_and_out_again(javascript: Run, rng: np.random.Generator) -> None:
    sizes = rng.integers(1, 9, (CASES, 2)).tolist()
    matrices = [rng.random(size) for size in sizes]
    sent = [[explorer_data.pack(w), *size] for w, size in zip(matrices, sizes, strict=True)]
    for found, weights in zip(javascript("([t, n, c]) => m.unpack(t, n, c)", sent), matrices, strict=True):
        np.testing.assert_allclose(found, weights, rtol=0, atol=0.5001 / 4095)
    squares = [np.tril(rng.random((n, n))) for n, _ in sizes]
    sent = [[explorer_data.pack(explorer_data.lower(w)), len(w)] for w in squares]
    for found, weights in zip(javascript("([t, n]) => m.unpackLower(t, n)", sent), squares, strict=True):
        np.testing.assert_allclose(found, weights, rtol=0, atol=0.5001 / 4095)


def test_every_function_is_compared() -> None:
    """What attention.js exports is named in this file."""
    exported = re.findall(
        r"^export (?:const|function) (\w+)", (STATIC / "explorers" / "attention.js").read_text(encoding="utf-8"), re.M
    )
    here = Path(__file__).read_text(encoding="utf-8").partition("def test_every_function_is_compared")[0]
    used_inside = {"dot", "transpose", "matmul", "attentionScores"}  # by attention and selfAttention
    assert len(exported) > 25
    assert {name for name in exported if not re.search(rf"\bm\.{name}\b|\"{name}\"", here)} == used_inside


def test_the_colour_maps_are_those_of_the_figures(module_page: Page) -> None:
    values = np.linspace(0, 1, 101)
    for name, colormap in palette.COLORMAPS.items():
        found = module_page.evaluate(
            "async ([name, values]) => { const c = await import('/explorers/colours.js');"
            " return values.map(v => c.colourOf(name, v)); }",
            [name, values.tolist()],
        )
        expected = np.round(255 * np.asarray(colormap(values))[:, :3])
        assert np.abs(np.asarray(found) - expected).max() <= 3, name  # matplotlib's has 256 steps

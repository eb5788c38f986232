"""The claims of the Home page."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import attn_guide as ag
from attn_guide import plot, taxonomy


def compass():
    """The dictionary of the Home page: four directions as unit vectors, a temperature behind each."""
    directions = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])  # north, east, south, west
    return directions, np.array([[8.0], [14.0], [21.0], [11.0]])


def look_up(query, temperature):
    """A soft lookup: weights from dot products, the mean of the values with these weights."""
    directions, values = compass()
    weights = ag.softmax(query @ directions.T, temperature=temperature)
    return weights @ values


@pytest.mark.claim("home-soft-lookup")
def test_soft_lookup_lies_between_a_dictionary_and_a_mean(claim):
    """Near temperature 0 a stored key gives its own value back; at a high temperature every query gives the mean."""
    directions, values = compass()
    cold = np.array([look_up(direction, 0.01) for direction in directions]).ravel()
    hot = np.array([look_up(direction, 1e6) for direction in directions]).ravel()
    claim.check("values found at temperature 0.01", cold, expected=values.ravel(), tolerance=1e-9, why="rounding")
    claim.check(
        "values found at temperature 1,000,000", hot, expected=values.mean(), tolerance=1e-4, why="first order in 1/tau"
    )
    north_east = np.array([1.0, 1.0]) / np.sqrt(2)
    between = look_up(north_east, 0.01).item()
    claim.check("value between north and east", between, expected=(8 + 14) / 2, tolerance=1e-9, why="rounding")


@pytest.mark.claim("home-four-steps")
def test_the_four_steps_have_these_shapes(claim):
    """Scores and weights are n x m, the output n x d_v, and each row of weights sums to one."""
    n, m, d_k, d_v = 4, 6, 8, 5
    rng = claim.rng(0)
    query, key, value = rng.standard_normal((n, d_k)), rng.standard_normal((m, d_k)), rng.standard_normal((m, d_v))
    scores = query @ key.T
    scaled = scores / np.sqrt(d_k)
    weights = ag.softmax(scaled)
    output = weights @ value
    claim.note(n=n, m=m, d_k=d_k, d_v=d_v)
    claim.check("shape of the scores", scores.shape, expected=(n, m))
    claim.check("shape of the scaled scores", scaled.shape, expected=(n, m))
    claim.check("shape of the weights", weights.shape, expected=(n, m))
    claim.check("shape of the output", output.shape, expected=(n, d_v))
    claim.below("largest distance of a row sum from one", np.abs(weights.sum(-1) - 1).max(), 1e-12)
    whole, all_weights = ag.scaled_dot_product_attention(query, key, value, return_weights=True)
    claim.below("largest distance from the function", np.abs(whole - output).max(), 1e-12)
    claim.below("largest distance of its weights", np.abs(all_weights - weights).max(), 1e-12)


@pytest.mark.claim("home-shapes")
def test_shapes_of_the_quick_reference(claim):
    """The matrix of weights is square for self-attention, n x m for cross-attention, and repeated per head."""
    n, m, d_model, heads, kv_heads = 5, 7, 16, 4, 2
    rng = claim.rng(0)
    target, source = rng.standard_normal((n, d_model)), rng.standard_normal((m, d_model))
    w_q, w_k, w_v = (rng.standard_normal((d_model, d_model)) for _ in range(3))
    _, self_weights = ag.self_attention(target, w_q, w_k, w_v, return_weights=True)
    _, cross_weights = ag.cross_attention(target, source, w_q, w_k, w_v, return_weights=True)
    _, causal_weights = ag.self_attention(target, w_q, w_k, w_v, is_causal=True, return_weights=True)
    split = [ag.split_heads(target @ w, heads) for w in (w_q, w_k, w_v)]
    _, head_weights = ag.scaled_dot_product_attention(*split, return_weights=True)
    grouped = [split[0], *(x[..., :kv_heads, :, :] for x in split[1:])]
    _, grouped_weights = ag.scaled_dot_product_attention(*grouped, enable_gqa=True, return_weights=True)
    claim.note(n=n, m=m, h=heads, h_kv=kv_heads)
    claim.check("self-attention", self_weights.shape, expected=(n, n))
    claim.check("cross-attention", cross_weights.shape, expected=(n, m))
    claim.check("causal attention", causal_weights.shape, expected=(n, n))
    claim.check("multi-head attention", head_weights.shape, expected=(heads, n, n))
    claim.check("grouped-query attention", grouped_weights.shape, expected=(heads, n, n))
    claim.check("numbers cached per token, multi-head", 2 * split[1].size // n, expected=2 * d_model)
    claim.check(
        "numbers cached per token, grouped-query", 2 * grouped[1].size // n, expected=2 * d_model * kv_heads // heads
    )
    claim.check("causal weights above the diagonal", np.abs(np.triu(causal_weights, 1)).max(), expected=0.0)


def example(n, width=64):
    """Random queries, keys and values (1, n, width) in single precision."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, n, width)).astype(np.float32) for _ in range(3)]


def processor_times(run, lengths, repeats=3):
    """Seconds of processor time of ``run(q, k, v)`` at every length, the best of a few runs after one to warm up."""
    seconds = []
    for n in lengths:
        tensors = example(n)
        run(*tensors)
        taken = []
        for _ in range(repeats):
            start = time.process_time()
            run(*tensors)
            taken.append(time.process_time() - start)
        seconds.append(min(taken))
    return seconds


def time_exponent(name, lengths):
    """Fit the growth of processor time, taken by this file in a process of its own with one thread.

    Several threads wait for each other in a loop, and on a busy machine that waiting counts as processor time.
    """
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, name]
    ran = subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True, check=True)
    return ag.fit_exponent(lengths, json.loads(ran.stdout)).exponent


def memory_exponent(run, lengths):
    """Fit the growth of the peak memory of ``run(q, k, v)``, after a first call."""
    peaks = []
    for n in lengths:
        tensors = example(n)
        run(*tensors)
        peaks.append(ag.peak_memory(lambda tensors=tensors: run(*tensors)))
    return ag.fit_exponent(lengths, peaks).exponent


#: How each kind of attention is run, over which lengths, and how its peak memory should grow.
GROWTH = {
    "dense, weights kept": (
        lambda q, k, v: ag.scaled_dot_product_attention(q, k, v, return_weights=True),
        (1024, 2048, 4096, 8192),
        2.0,
    ),
    "flash": (lambda q, k, v: ag.flash_attention(q, k, v), (4096, 8192, 16384), 1.0),
    "sliding window": (lambda q, k, v: ag.sliding_window_attention(q, k, v, 64, 64), (8192, 16384, 32768, 65536), 1.0),
    "linear": (lambda q, k, v: ag.linear_attention(q, k, v), (16384, 32768, 65536, 131072), 1.0),
}


@pytest.mark.claim("home-growth")
def test_how_time_and_memory_grow(claim):
    """Peak memory grows as n^2 where the weights are kept and as n elsewhere; time is recorded, not judged."""
    for name, (run, lengths, memory) in GROWTH.items():
        claim.note(**{f"{name}: time": time_exponent(name, lengths), f"{name}: lengths": list(lengths)})
        # Buffers of a fixed size (a block of scores) flatten the fit at the short end.
        claim.check(
            f"{name}: memory", memory_exponent(run, lengths), expected=memory, tolerance=0.25, why="fixed-size buffers"
        )


if __name__ == "__main__":  # one kind of attention, timed for `time_exponent`
    timed, at, _ = GROWTH[sys.argv[1]]
    print(json.dumps(processor_times(timed, at)))


@pytest.mark.claim("home-apparatus")
def test_the_guide_keeps_its_own_house(claim, tmp_path):
    """Chapters, links to headings, references and a drawing with awkward words, counted and parsed."""
    root = Path(__file__).resolve().parents[2]
    pages = sorted((root / "docs" / "chapters").glob("*.md"))
    claim.check("pages of chapters", len(pages), expected=len(taxonomy.CHAPTERS))
    claim.note(chapters=len(pages), first=pages[0].name[0], last=pages[-1].name[0])

    text = {path: path.read_text(encoding="utf-8") for path in sorted((root / "docs").glob("**/*.md"))}
    labels = {label for page in text.values() for label in re.findall(r"^\(([\w-]+)\)=$", page, re.MULTILINE)}
    labels |= {
        f"claim-{id}" for page in text.values() for id in re.findall(r"^:+\{claim\} ([\w-]+)", page, re.MULTILINE)
    }
    links = [label for page in text.values() for label in re.findall(r"\]\(#([\w-]+)\)", page)]
    claim.check("links to labels that do not exist", sorted(set(links) - labels), expected=[])
    claim.note(links=len(links))

    used = {
        key for page in text.values() for role in re.findall(r"\{cite:\w+\}`([^`]+)`", page) for key in role.split(",")
    }
    known = set(re.findall(r"^@\w+\{(\w+),", (root / "docs" / "refs.bib").read_text(encoding="utf-8"), re.MULTILINE))
    claim.check("citations without an entry", sorted({key.strip() for key in used} - known), expected=[])
    claim.note(references=len(used))

    figure = plot.figure("home-awkward", title="Q & K < V, “>”", caption="For the check alone.", size=(4, 3))
    plot.flow(figure.subplots(), {"a": "Q & K", "b": "1 < 2"}, [("a", "b", "a < b")], ["a b"])
    plot.describe(figure, "Two boxes and an arrow.")
    plot.take()
    broken = []
    for path in plot.save(figure, tmp_path):
        drawing = ElementTree.fromstring(path.read_bytes())  # a bare & would raise
        named = {element.get("id") for element in drawing.iter()}
        wanted = re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", path.read_text(encoding="utf-8"))
        broken += [name for pair in wanted for name in pair if name and name not in named]
    claim.check("parts of a drawing that it names and does not have", broken, expected=[])

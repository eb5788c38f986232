"""Every mechanism of the guide as data: its paper, the code that runs it, the section that teaches it.

The taxonomy figure, the quick-reference table, the timeline and the cross-links of the API are all made from the
two tuples here, ``MECHANISMS`` and ``EVENTS``, so no leaf of the tree can name code that does not exist without
saying so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["AXES", "CHAPTERS", "EVENTS", "MECHANISMS", "Event", "Mechanism", "find", "pending"]

#: Chapter number to (page name, title).
CHAPTERS: dict[int, tuple[str, str]] = {
    0: ("0-concepts", "Important concepts"),
    1: ("1-self-attention", "Self-attention"),
    2: ("2-cross-attention", "Cross-attention"),
    3: ("3-multi-head", "Multi-head attention"),
    4: ("4-causal", "Causal attention"),
    5: ("5-sparse", "Sparse attention"),
    6: ("6-score-functions", "Score functions"),
    7: ("7-soft-hard", "Soft and hard attention"),
}

#: The questions that split the field; every mechanism answers one of them first.
AXES: dict[str, str] = {
    "source": "Where do the queries, keys and values come from?",
    "computation": "How is a query compared with a key?",
    "pattern": "Which pairs may meet?",
    "structure": "How many heads, and what do they share?",
    "position": "How does order get in?",
    "selection": "Average, or choose?",
    "algorithm": "How is it computed?",
}


@dataclass(frozen=True)
class _Entry:
    """What a leaf of the tree and an entry of the timeline share: a paper, running code, a chapter."""

    name: str
    year: int
    paper: str
    function: str
    chapter: int

    def resolve(self) -> Callable[..., Any] | type | None:
        """Return the function or class that runs it, or None where it is not written yet."""
        module_name, _, name = self.function.rpartition(".")
        try:
            module = importlib.import_module(f"attn_guide.{module_name}")
        except ModuleNotFoundError as error:
            # Only the module asked for may be missing: an absent dependency of it (torch) is another matter.
            if (error.name or "").startswith("attn_guide"):
                return None
            raise
        return getattr(module, name, None)

    @property
    def is_written(self) -> bool:
        """Whether running code stands behind the entry."""
        return self.resolve() is not None


@dataclass(frozen=True)
class Mechanism(_Entry):
    """One leaf of the taxonomy.

    Parameters
    ----------
    name : str
        The field's name for it.
    year : int
        Year of the first paper.
    paper : str
        Key of that paper in ``docs/refs.bib``.
    function : str
        ``"module.name"`` inside the package.
    chapter : int
        Chapter that teaches it.
    section : str
        Label of the section that teaches it.
    axis : str
        A key of ``AXES``.
    group : str
        The branch below the axis.

    Examples
    --------
    >>> from attn_guide import taxonomy
    >>> temperature = taxonomy.find("Temperature")
    >>> temperature.function, temperature.chapter, temperature.is_written
    ('core.softmax', 0, True)
    """

    section: str
    axis: str
    group: str


@dataclass(frozen=True)
class Event(_Entry):
    """One entry of the timeline: a system, its paper, and the code here that runs it.

    Parameters
    ----------
    name : str
        The system's name.
    year : int
        Year of the first public version of the paper.
    paper : str
        Key of the paper in ``docs/refs.bib``.
    function : str
        ``"module.name"`` inside the package.
    chapter : int
        Chapter that teaches it.
    contribution : str
        What was new, in a few words.

    Examples
    --------
    >>> from attn_guide import taxonomy
    >>> first = taxonomy.EVENTS[0]
    >>> first.year, first.name
    (2014, 'Bahdanau')
    """

    contribution: str


def _leaves(axis: str, group: str, rows: list[tuple[str, int, str, str, int, str]]) -> tuple[Mechanism, ...]:
    return tuple(Mechanism(*row, axis=axis, group=group) for row in rows)


#: Every mechanism of the guide, in the order of the tree.
MECHANISMS: tuple[Mechanism, ...] = (
    *_leaves(
        "source",
        "Source",
        [
            ("Self-attention", 2017, "vaswani2017", "core.self_attention", 1, "self-five-steps"),
            ("Cross-attention", 2014, "bahdanau2014", "core.cross_attention", 2, "cross-idea"),
            (
                "Encoder-decoder (hybrid)",
                2017,
                "vaswani2017",
                "layers.transformer",
                2,
                "cross-encoder-decoder",
            ),
        ],
    ),
    *_leaves(
        "computation",
        "Score",
        [
            ("Additive", 2014, "bahdanau2014", "scores.additive_score", 6, "scores-additive"),
            ("Dot product", 2015, "luong2015", "scores.dot_score", 6, "scores-dot"),
            ("General", 2015, "luong2015", "scores.general_score", 6, "scores-general"),
            ("Concat", 2015, "luong2015", "scores.concat_score", 6, "scores-concat"),
            ("Scaled dot product", 2017, "vaswani2017", "scores.scaled_dot_score", 6, "scores-scaled"),
            ("Cosine", 2014, "graves2014", "scores.cosine_score", 6, "scores-cosine"),
        ],
    ),
    *_leaves(
        "pattern",
        "Dense",
        [
            ("Dense", 2017, "vaswani2017", "core.scaled_dot_product_attention", 1, "self-five-steps"),
            ("Causal", 2017, "vaswani2017", "masks.causal", 4, "causal-mask"),
            ("Prefix LM", 2019, "raffel2020", "masks.prefix", 4, "causal-prefix"),
            ("Document (packed)", 2019, "raffel2020", "masks.document", 4, "causal-document"),
            ("Attention sinks", 2023, "xiao2023", "masks.sinks", 4, "causal-sinks"),
        ],
    ),
    *_leaves(
        "pattern",
        "Sparse",
        [
            ("Sliding window", 2020, "beltagy2020", "sparse.sliding_window_attention", 5, "sparse-window"),
            ("Dilated window", 2020, "beltagy2020", "masks.dilated_window", 5, "sparse-dilated"),
            ("Strided", 2019, "child2019", "masks.strided", 5, "sparse-strided"),
            (
                "Global + local (Longformer)",
                2020,
                "beltagy2020",
                "sparse.longformer_attention",
                5,
                "sparse-longformer",
            ),
            ("Random keys", 2020, "zaheer2020", "masks.random_keys", 5, "sparse-random"),
            ("Block", 2020, "zaheer2020", "sparse.block_sparse_attention", 5, "sparse-block"),
            ("BigBird", 2020, "zaheer2020", "sparse.bigbird_attention", 5, "sparse-bigbird"),
        ],
    ),
    *_leaves(
        "structure",
        "Heads",
        [
            ("Single head", 2014, "bahdanau2014", "core.scaled_dot_product_attention", 1, "self-five-steps"),
            ("Multi-head (MHA)", 2017, "vaswani2017", "heads.multi_head_attention", 3, "heads-steps"),
            ("Multi-query (MQA)", 2019, "shazeer2019", "heads.multi_head_attention", 3, "heads-mqa"),
            ("Grouped-query (GQA)", 2023, "ainslie2023", "heads.multi_head_attention", 3, "heads-gqa"),
            (
                "Multi-head latent (MLA)",
                2024,
                "deepseek2024",
                "heads.multi_head_latent_attention",
                3,
                "heads-mla",
            ),
        ],
    ),
    *_leaves(
        "position",
        "Position",
        [
            ("Sinusoidal", 2017, "vaswani2017", "positions.sinusoidal_positions", 0, "concepts-positions"),
            ("Learned", 2017, "gehring2017", "positions.learned_positions", 0, "concepts-positions"),
            ("Relative bias (T5)", 2019, "raffel2020", "positions.t5_relative_bias", 0, "concepts-positions"),
            ("Rotary (RoPE)", 2021, "su2021", "positions.apply_rope", 0, "concepts-positions"),
            ("Linear bias (ALiBi)", 2021, "press2021", "positions.alibi_bias", 0, "concepts-positions"),
        ],
    ),
    *_leaves(
        "selection",
        "Soft",
        [
            ("Temperature", 2015, "hinton2015", "core.softmax", 0, "concepts-temperature"),
            ("Sparsemax", 2016, "martins2016", "selection.sparsemax", 7, "soft-sparsemax"),
            ("Entmax", 2019, "peters2019", "selection.entmax", 7, "soft-entmax"),
        ],
    ),
    *_leaves(
        "selection",
        "Hard",
        [
            ("Hard attention", 2015, "xu2015", "selection.hard_attention", 7, "soft-hard"),
            ("REINFORCE", 1992, "williams1992", "selection.reinforce_gradient", 7, "soft-reinforce"),
            ("Gumbel-softmax", 2016, "jang2016", "selection.gumbel_softmax", 7, "soft-gumbel"),
            (
                "Straight-through",
                2013,
                "bengio2013",
                "selection.straight_through",
                7,
                "soft-straight-through",
            ),
            ("Top-k", 2019, "zhao2019", "selection.top_k_attention", 7, "soft-top-k"),
        ],
    ),
    *_leaves(
        "algorithm",
        "Exact",
        [
            ("FlashAttention", 2022, "dao2022", "flash.flash_attention", 5, "sparse-flash"),
            ("KV cache", 2019, "shazeer2019", "cache.KVCache", 4, "causal-cache"),
            ("Ring attention", 2023, "liu2023", "torch.ring.ring_attention", 5, "sparse-ring"),
        ],
    ),
    *_leaves(
        "algorithm",
        "Another function",
        [
            ("Linear attention", 2020, "katharopoulos2020", "linear.linear_attention", 5, "sparse-linear"),
            (
                "Random features (Performer)",
                2020,
                "choromanski2020",
                "linear.random_features",
                5,
                "sparse-linear",
            ),
            ("Delta rule", 2021, "schlag2021", "linear.delta_rule_attention", 5, "sparse-linear"),
        ],
    ),
)

#: The timeline of the field, each entry with the code here that runs it.
EVENTS: tuple[Event, ...] = (
    Event("Bahdanau", 2014, "bahdanau2014", "models.bahdanau.Bahdanau", 2, "additive attention in translation"),
    Event("Show, Attend and Tell", 2015, "xu2015", "selection.hard_attention", 7, "soft and hard attention"),
    Event("Luong", 2015, "luong2015", "models.luong.Luong", 6, "global and local attention"),
    Event("Transformer", 2017, "vaswani2017", "layers.transformer", 2, "attention alone"),
    Event("Sparse Transformer", 2019, "child2019", "masks.strided", 5, "strided patterns"),
    Event("MQA", 2019, "shazeer2019", "heads.multi_head_attention", 3, "one key/value head"),
    Event("Longformer", 2020, "beltagy2020", "sparse.longformer_attention", 5, "window and global tokens"),
    Event("Linear attention", 2020, "katharopoulos2020", "linear.linear_attention", 5, "a kernel instead of softmax"),
    Event("BigBird", 2020, "zaheer2020", "sparse.bigbird_attention", 5, "window, global and random blocks"),
    Event("RoPE", 2021, "su2021", "positions.apply_rope", 0, "positions as rotations"),
    Event("ALiBi", 2021, "press2021", "positions.alibi_bias", 0, "positions as a linear bias"),
    Event("FlashAttention", 2022, "dao2022", "flash.flash_attention", 5, "exact, without the n × n matrix"),
    Event("GQA", 2023, "ainslie2023", "heads.multi_head_attention", 3, "groups of heads share keys"),
    Event("Attention sinks", 2023, "xiao2023", "masks.sinks", 4, "first tokens kept for streaming"),
    Event("Ring attention", 2023, "liu2023", "torch.ring.ring_attention", 5, "one sequence on many machines"),
    Event("MLA", 2024, "deepseek2024", "heads.multi_head_latent_attention", 3, "a low-rank key/value cache"),
    Event("FlexAttention", 2024, "dong2024", "masks.Mask", 4, "patterns as predicates"),
)


def find(name: str) -> Mechanism:
    """Return the mechanism of that name.

    Parameters
    ----------
    name : str
        A name of ``MECHANISMS``, in any case.

    Returns
    -------
    Mechanism
        The entry.

    Raises
    ------
    ValueError
        If there is none; the message lists the names.

    Examples
    --------
    >>> from attn_guide import taxonomy
    >>> taxonomy.find("rotary (rope)").year
    2021
    """
    for mechanism in MECHANISMS:
        if mechanism.name.lower() == name.lower():
            return mechanism
    raise ValueError(f"name is {name!r}; wanted one of {', '.join(m.name for m in MECHANISMS)}")


def pending() -> tuple[str, ...]:
    """Return the dotted names that the taxonomy and the timeline promise and that are not written yet.

    Returns
    -------
    tuple of str
        Sorted, without repeats.

    Examples
    --------
    >>> from attn_guide import taxonomy
    >>> "core.softmax" in taxonomy.pending()
    False
    """
    entries: tuple[_Entry, ...] = (*MECHANISMS, *EVENTS)
    return tuple(sorted({entry.function for entry in entries if not entry.is_written}))

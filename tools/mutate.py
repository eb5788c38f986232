"""Plant faults in the package and see whether the tests find them.

    python -m tools.mutate            every fault; exits with 1 if one survives
    python -m tools.mutate softmax    the faults whose name or module contains a word

Each fault is one small, plausible mistake: a wrong scale, a window off by one, the wrong key/value head. It is planted
in a copy of the package, in a temporary folder, and the tests of that module are run there until one fails. A fault
that no test notices is a hole in the tests; a fault whose text is no longer in the source is an error, so that the list
cannot rot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fault:
    """One mistake: in ``module``, ``right`` becomes ``wrong``."""

    module: str
    what: str
    right: str
    wrong: str
    tests: str = ""  # where they are not in the file that is named like the module

    @property
    def test_file(self) -> str:
        return f"tests/test_{self.tests or self.module.replace('/', '_')}.py"

    @property
    def name(self) -> str:
        return f"{self.module}: {self.what}"


_DISPATCH, _FUNCTIONAL = "torch_dispatch", "torch_functional"

FAULTS = (
    # --- core
    Fault("core", "softmax without the shift", "z -= _finite_max(z, axis)", "z -= 0 * _finite_max(z, axis)"),
    Fault("core", "temperature multiplies", "np.divide(z, divisor", "np.multiply(z, divisor"),
    Fault("core", "scale by d instead of its root", "1.0 / sqrt(q.shape[-1])", "1.0 / q.shape[-1]"),
    Fault("core", "no soft-cap afterwards", "s *= p.softcap", "s *= 1.0"),
    Fault("core", "causal hides the diagonal", "kv_idx[:, later] > q_idx", "kv_idx[:, later] >= q_idx"),
    Fault("core", "float mask ignored", "bias = p.bias[at][..., rows, keys]", "bias = 0 * p.bias[at][..., rows, keys]"),
    Fault(
        "core", "boolean mask inverted", "where=~p.allowed[at][..., rows, keys]", "where=p.allowed[at][..., rows, keys]"
    ),
    Fault("core", "dropout not rescaled", "dtype.type(1.0 / (1.0 - p) if p < 1.0 else 0.0)", "dtype.type(1.0)"),
    Fault(
        "core",
        "grouped heads interleaved",
        "h_kv, x.shape[-3] // h_kv, *x.shape[-2:])",
        "x.shape[-3] // h_kv, h_kv, *x.shape[-2:])",
    ),
    Fault(
        "core",
        "softmax gradient without the mean",
        "ds = w * (g - (g * w).sum(axis=axis, keepdims=True))",
        "ds = w * g",
    ),
    Fault("core", "soft-cap slope forgotten", "ds *= 1.0 - (capped / p.softcap) ** 2", "ds *= 1.0"),
    Fault("core", "gradient not scaled", "ds *= p.scale", "ds *= 1.0"),
    # --- positions
    Fault(
        "positions",
        "sine and cosine swapped",
        "np.stack([np.sin(angles), np.cos(angles)]",
        "np.stack([np.cos(angles), np.sin(angles)]",
    ),
    Fault("positions", "rotation the wrong way", "p * cos - q * sin", "p * cos + q * sin"),
    Fault("positions", "frequencies off by one pair", "(-np.arange(0, d, 2) / d)", "(-np.arange(2, d + 2, 2) / d)"),
    Fault("positions", "ALiBi rewards distance", "-slopes[:, None, None]", "slopes[:, None, None]"),
    Fault(
        "positions",
        "ALiBi slopes of a power of two only",
        "geometric(2 * power)[::2][: h - power]",
        "geometric(2 * power)[1::2][: h - power]",
    ),
    Fault("positions", "T5 side reversed", "bidirectional & (distance > 0)", "bidirectional & (distance < 0)"),
    # --- masks
    Fault(
        "masks",
        "window too long on the left",
        "(kv_idx >= q_idx - left) & (kv_idx",
        "(kv_idx >= q_idx - left - 1) & (kv_idx",
    ),
    Fault(
        "masks",
        "global rows but not columns",
        "| ((kv_idx >= low) & (kv_idx < high))",
        "| ((kv_idx < low) & (kv_idx >= high))",
    ),
    Fault(
        "masks", "blocks compared by remainder", "q_idx // block == kv_idx // block", "q_idx % block == kv_idx % block"
    ),
    Fault("masks", "prefix one short", "(kv_idx < count) & (q_idx >= 0)", "(kv_idx < count - 1) & (q_idx >= 0)"),
    # --- heads
    Fault(
        "heads",
        "heads split along the length",
        "h, a.shape[-1] // h).swapaxes(-2, -3)",
        "a.shape[-1] // h, h).swapaxes(-1, -2).swapaxes(-2, -3)",
    ),
    Fault("heads", "torch weights not transposed", 'w_o=need("out_proj.weight").T', 'w_o=need("out_proj.weight")'),
    Fault(
        "heads",
        "latent scale without the rotated part",
        "1.0 / np.sqrt(params.d_nope + params.d_rope)",
        "1.0 / np.sqrt(params.d_nope)",
    ),
    Fault(
        "heads",
        "rotation not undone in the gradient",
        "rope(x, -np.arange(x.shape[-2]))",
        "rope(x, np.arange(x.shape[-2]))",
    ),
    # --- cache
    Fault(
        "cache",
        "rotation restarts at every step",
        "np.arange(self._length, self._length + k.shape[-2]))",
        "np.arange(k.shape[-2]))",
    ),
    Fault(
        "cache", "window keeps one key too many", "sliding_window(self.window - 1, 0)", "sliding_window(self.window, 0)"
    ),
    Fault("cache", "bytes without the values", '(checked["d_k"] + checked["d_v"])', 'checked["d_k"]'),
    Fault(
        "cache",
        "queries start too late",
        "start = self._length - n if self.is_causal else 0",
        "start = self._length - n + 1 if self.is_causal else 0",
    ),
    # --- flash
    Fault("flash", "running sum not rescaled", "total *= rescale", "total *= 1.0"),
    Fault("flash", "running mix not rescaled", "mixed *= rescale[:, None]", "mixed *= 1.0"),
    Fault(
        "flash", "last visible tile dropped", "if tile.keys.start >= rows.stop:", "if tile.keys.start >= rows.start:"
    ),
    Fault("flash", "wrong key/value head", "at[-1] // self.group)", "at[-1] % self.group)"),
    Fault("flash", "log-sum without the maximum", "lse += _finite(self.top)", "lse += 0 * _finite(self.top)"),
    Fault("flash", "backward without the row term", "grad_out @ tile.value.T - delta", "grad_out @ tile.value.T"),
    Fault(
        "flash",
        "mask not applied to the plain path",
        "edge *= tile.allowed\n        total",
        "edge *= 1.0\n        total",
    ),
    Fault("flash", "diagonal one key late", "rows.start + 1), tile.keys.stop)", "rows.start + 2), tile.keys.stop)"),
    # --- sparse
    Fault("sparse", "window misses its last key", "min(m, last + 1)", "min(m, last)"),
    Fault("sparse", "global keys counted twice", "elsewhere[everywhere] = False", "elsewhere[everywhere] = True"),
    Fault(
        "sparse", "global queries with local keys only", "out[..., chosen, :] = flash_attention", "_ = flash_attention"
    ),
    Fault("sparse", "random blocks ignored", "*anchors, *table[(*at, i)].tolist()", "*anchors"),
    # --- linear
    Fault("linear", "state used before it is complete", "out[chunk] = q[chunk] @ state + ", "out[chunk] = "),
    Fault("linear", "no normalisation", "out[..., :-1] / np.where", "out[..., :-1] * 0.5 / np.where"),
    Fault(
        "linear",
        "causal sum excludes the present",
        "np.tri(*weights.shape[-2:], dtype",
        "np.tri(*weights.shape[-2:], k=-1, dtype",
    ),
    # --- scores
    Fault("scores", "additive without the squashing", "np.tanh(hidden, out=hidden) @ readout", "hidden @ readout"),
    Fault(
        "scores",
        "concat cut at the wrong place",
        "return w[: q.shape[-1]], w[q.shape[-1] :]",
        "return w[: k.shape[-1]], w[k.shape[-1] :]",
    ),
    Fault("scores", "cosine not normalised", "return np.divide(y, length,", "return np.divide(x, 1.0 + 0 * length,"),
    Fault("scores", "radial gradient kept", "tangent = grad - unit * np.sum", "tangent = grad - 0 * unit * np.sum"),
    # --- selection
    Fault(
        "selection",
        "Gumbel noise of the wrong sign",
        'return check_rng("rng", rng).gumbel(size=shape)',
        'return -check_rng("rng", rng).gumbel(size=shape)',
    ),
    Fault("selection", "top-k keeps the worst", "np.argsort(-scores", "np.argsort(scores"),
    Fault("selection", "sparsemax threshold too low", "tau = (total - 1.0)", "tau = (total - 2.0)"),
    Fault(
        "selection",
        "baseline includes its own draw",
        "(drawn_reward.sum() - drawn_reward) / (drawn_reward.size - 1)",
        "drawn_reward.mean() + 0 * drawn_reward + 1e3 * (drawn_reward - drawn_reward.mean())",
    ),
    Fault("selection", "entmax gradient of softmax", "np.power(p, 2.0 - order,", "np.power(p, 1.0,"),
    # --- layers
    Fault(
        "layers",
        "variance with the wrong divisor",
        "np.square(centred).mean(axis=-1, keepdims=True)",
        "np.square(centred).sum(axis=-1, keepdims=True) / (a.shape[-1] - 1)",
    ),
    Fault(
        "layers",
        "RMS norm centres",
        "mean_square = np.square(a).mean",
        "mean_square = np.square(a - a.mean(axis=-1, keepdims=True)).mean",
    ),
    Fault("layers", "GELU by tanh always", '== "tanh":', '!= "":'),
    # --- measure
    Fault("measure", "one width for keys and values", "weighted_sum=h * pairs * d_v", "weighted_sum=h * pairs * d_k"),
    Fault("measure", "projections without the output", " + n * h * d_v * d_model,", ","),
    Fault("measure", "slope upside down", "slope = (u @ v) / spread", "slope = spread / (u @ v)"),
    # --- torch
    Fault(
        "torch/core",
        "scale by d instead of its root",
        "1.0 / sqrt(query.shape[-1])",
        "1.0 / query.shape[-1]",
        _DISPATCH,
    ),
    Fault(
        "torch/core",
        "causal hides the diagonal",
        "columns > rows, -torch.inf",
        "columns >= rows, -torch.inf",
        _DISPATCH,
    ),
    Fault("torch/core", "empty rows average", ".masked_fill(empty, 0.0)\n", "\n", _DISPATCH),
    Fault("torch/core", "no soft-cap afterwards", "p.softcap * torch.tanh", "torch.tanh", _DISPATCH),
    Fault(
        "torch/dispatch",
        "float mask hides with zeros",
        "mask.masked_fill(~allowed, -torch.inf)",
        "mask.masked_fill(~allowed, 0.0)",
    ),
    Fault(
        "torch/dispatch",
        "causal forgotten beside a mask tensor",
        "allowed = triangle if allowed is None else allowed & triangle",
        "pass",
    ),
    Fault("torch/dispatch", "any flag is causal", 'is_causal or said == "causal"', "True"),
    Fault(
        "torch/flex",
        "heads share the first head's mask",
        "self.uses_h = _uses(mask, 1)",
        "self.uses_h = False",
        _DISPATCH,
    ),
    Fault(
        "torch/flex",
        "part blocks taken for full",
        "every[:, :, start : start + step] = tiles.all(dim=-1).all(dim=-2)",
        "every[:, :, start : start + step] = tiles.any(dim=-1).any(dim=-2)",
        _DISPATCH,
    ),
    Fault("torch/flex", "every relative mask is causal", "np.array_equal(seen, offset <= 0)", "True", _DISPATCH),
    Fault(
        "torch/tiles",
        "the last block of keys dropped",
        "(blocks[0], blocks[-1] + 1)",
        "(blocks[0], blocks[-1])",
        _DISPATCH,
    ),
    Fault(
        "torch/linear",
        "state reads its own chunk",
        "[..., :-1, :, :], (0, 0, 0, 0, 1, 0))",
        ", (0, 0, 0, 0, 0, 0))",
        _FUNCTIONAL,
    ),
    Fault("torch/linear", "the delta rule writes all", "now_b * (now_v - now_k @ state)", "now_b * now_v", _FUNCTIONAL),
    Fault(
        "torch/positions",
        "rotation the wrong way",
        "torch.cat([a * cos - b * sin",
        "torch.cat([a * cos + b * sin",
        _FUNCTIONAL,
    ),
    Fault(
        "torch/selection",
        "entmax gradient without the mean",
        "return s * (grad - mean), None",
        "return s * grad, None",
        _FUNCTIONAL,
    ),
    Fault(
        "torch/selection",
        "reward differentiated with the wrong sign",
        "return -(reward * chosen).mean()",
        "return (reward * chosen).mean()",
        _FUNCTIONAL,
    ),
    Fault(
        "torch/sparse",
        "global rows from the local projections",
        "q, k, v = (local if own is None else own for",
        "q, k, v = (local for",
        _FUNCTIONAL,
    ),
    Fault("torch/cache", "window one too wide", "stored > at - self.window", "stored >= at - self.window"),
    Fault(
        "torch/cache",
        "sinks overwritten",
        "self.sinks + (position - self.sinks) % self.window",
        "position % self.window",
    ),
    Fault(
        "torch/nn",
        "keys not rotated",
        "q, k = self._rotate(q, None), self._rotate(k, None)",
        "q = self._rotate(q, None)",
    ),
    Fault("torch/nn", "Gaussian twice as wide", "torch.exp(-2.0 *", "torch.exp(-0.5 *"),
    Fault("torch/nn", "joined projection cut in another order", 'zip("qkv", joined', 'zip("kqv", joined'),
)


def plant(fault: Fault, folder: Path) -> None:
    """Copy the package and its tests into ``folder`` and plant ``fault`` there."""
    shutil.copytree(ROOT / "attn_guide", folder / "attn_guide", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    for test in (ROOT / "tests").glob("*.py"):
        shutil.copy(test, folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    source = folder / "attn_guide" / f"{fault.module}.py"
    text = source.read_text(encoding="utf-8")
    if text.count(fault.right) != 1:
        raise ValueError(f"{fault.name}: {fault.right!r} stands {text.count(fault.right)} times in {fault.module}.py")
    source.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")


def is_caught(fault: Fault) -> bool:
    """Whether the tests of the fault's module fail on the package with the fault in it."""
    with tempfile.TemporaryDirectory() as name:
        plant(fault, Path(name))
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                "--noconftest",
                fault.test_file,
            ],
            cwd=name,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(name) / ".hypothesis")},
            capture_output=True,
            text=True,
        )
    if run.returncode not in (0, 1):  # 0: all passed; 1: a test failed; anything else: the tests did not run
        raise RuntimeError(
            f"{fault.name}: pytest ended with {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
        )
    return run.returncode == 1


def main(words: list[str]) -> int:
    """Plant the faults whose name holds one of ``words`` (all without words); return the exit status."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if not chosen:
        print(f"no fault is named like {' or '.join(words)}", file=sys.stderr)
        return 2
    survivors = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for fault, caught in zip(chosen, pool.map(is_caught, chosen), strict=True):
            print(f"{'caught  ' if caught else 'SURVIVED'}  {fault.name}", flush=True)
            if not caught:
                survivors.append(fault)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

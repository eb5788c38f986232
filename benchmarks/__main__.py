"""``python -m benchmarks [topic ...] [--quick]``"""

from __future__ import annotations

import argparse

import torch

from attn_guide import _pool

from . import decode, dense, flash, gpu, linear, sparse, torch_dispatch
from .common import machine, save, table

TOPICS = {
    module.__name__.rpartition(".")[2]: module for module in (flash, dense, sparse, linear, decode, torch_dispatch, gpu)
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time the package beside PyTorch.")
    parser.add_argument("topics", nargs="*", metavar="topic", help=f"any of {', '.join(TOPICS)}; all unless given")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds, nothing saved")
    options = parser.parse_args()
    for topic in options.topics:
        if topic not in TOPICS:
            parser.error(f"unknown topic {topic!r}; wanted any of {', '.join(TOPICS)}")
    torch.set_num_threads(_pool.num_threads())  # the same number of threads on both sides
    where = machine() | gpu.machine()
    print("\n".join(f"{name}: {value}" for name, value in where.items()), flush=True)
    rows = []
    for topic in options.topics or TOPICS:
        done = TOPICS[topic].run(options.quick)
        rows += done
        print(f"\n{table(done)}", flush=True)
        if not options.quick and not (topic == gpu.TOPIC and not gpu.ON_GPU):
            save(topic, done, where)
    missed = [row for row in rows if row.holds is False]
    print(f"\n{len(rows)} measurements, {len(missed)} missed their target")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

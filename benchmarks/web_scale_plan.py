"""The plan of a run on web data, by arithmetic: `python -m benchmarks.web_scale_plan`.

Nothing is measured here. Rates come from the options, whose defaults are said in docs/web_scale.md
with the command that measured each, or are marked as assumed.
"""

import argparse
from dataclasses import dataclass

GPUS_PER_NODE = 8
GB, TB = 1e9, 1e12
LEAST_LANES = 64


@dataclass(frozen=True)
class Rates:
    """What a plan is computed from."""

    images_per_gpu: float
    """Images a second that one GPU trains on."""
    example_bytes: float
    """Bytes of an example in its shard: image, captions and the tar's headers."""
    shard_examples: int
    range_bytes: float
    """Bytes of one request to the store."""
    node_bandwidth: float
    """Bytes a second that a node reads from the store."""
    epochs: float
    checkpoint_minutes: float
    """Minutes between checkpoints."""
    restart_seconds: float
    """Seconds from a node's death to the first step after it, without the cache."""


def plan(pairs: float, gpus: int, rates: Rates) -> dict[str, str]:
    """Return the row of a number of pairs and GPUs."""
    nodes = max(1, gpus // GPUS_PER_NODE)
    lanes = max(LEAST_LANES, gpus)
    rate = gpus * rates.images_per_gpu
    total = pairs * rates.example_bytes
    shard_bytes = rates.shard_examples * rates.example_bytes
    per_node = rate / nodes * rates.example_bytes
    window = lanes / nodes * shard_bytes  # one shard of each of its lanes
    requests = per_node / rates.range_bytes
    lost = rates.checkpoint_minutes * 60 / 2 + rates.restart_seconds + window / rates.node_bandwidth
    return {
        "pairs": f"{pairs / 1e6:,.0f} M",
        "GPUs": f"{gpus}",
        "shards": f"{total / shard_bytes:,.0f}",
        "data": f"{total / TB:.2f} TB",
        "hours": f"{pairs * rates.epochs / rate / 3600:,.1f}",
        "read by a node": f"{per_node / GB:.2f} GB/s, {requests:.0f} requests/s",
        "before step 1": f"{window / GB:,.0f} GB, {window / rates.node_bandwidth:,.0f} s",
        "least cache of a node": f"{2 * window / GB:,.0f} GB",
        "a node's death": f"{lost / 60:.0f} min, {lost * gpus / 3600:,.0f} GPU hours",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=float, nargs="+", default=[12e6, 400e6])
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--images_per_gpu", type=float, default=3000)
    parser.add_argument("--example_bytes", type=float, default=30_000)
    parser.add_argument("--shard_examples", type=int, default=10_000)
    parser.add_argument("--range_bytes", type=float, default=2**23)
    parser.add_argument("--node_bandwidth", type=float, default=1.25e9)
    parser.add_argument("--epochs", type=float, default=32)
    parser.add_argument("--checkpoint_minutes", type=float, default=10)
    parser.add_argument("--restart_seconds", type=float, default=60)
    arguments = vars(parser.parse_args())
    pairs, gpus = arguments.pop("pairs"), arguments.pop("gpus")
    rows = [plan(one, number, Rates(**arguments)) for one in pairs for number in gpus]
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---:|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()

"""Damaged inputs, thousands of them: each must be read, or refused with a message.

    python -m tests.fuzz [--count 3000] [--seed 0] [--only KIND ...]

A failure is a traceback, more than 20 seconds or 2 GB, a message with raw control characters, or,
where a checksum stands by the file, values that are not the good file's. Failures are listed with
the seed that makes them again; the exit code is 1 if there are any.
"""

import argparse
import sys
from collections import Counter

from tests.fuzz.kinds import KINDS
from tests.fuzz.trial import Trials


def main() -> int:
    """Try the damaged inputs, and return the exit code."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=3000, help="inputs of all kinds together")
    options.add_argument("--seed", type=int, default=0, help="number of the first input")
    options.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    given = options.parse_args()
    num_failed, each = 0, -(-given.count // len(given.only))
    for name in given.only:
        outcomes: Counter[str] = Counter()
        with Trials(KINDS[name]) as trials:
            for seed in range(given.seed, given.seed + each):
                outcome = trials.run(seed)
                outcomes[outcome.verdict] += 1
                if outcome.is_failure:
                    num_failed += 1
                    print(f"{name} --seed {seed}: {outcome.verdict} ({outcome.target})")
                    print(f"    {outcome.message}".replace("\n", "\n    "))
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(outcomes.items()))
        print(f"{name}: {counts}", flush=True)
    print(f"{num_failed} failures in {each * len(given.only)} inputs")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Ten thousand randomized executions, a thousand of them ended by a real SIGKILL: how many break a promise?

Each follows from its seed alone: a random book and plan, a broker that drops, repeats, delays and rejects, halts,
clocks that jump, executors that die at random instants; then the faults stop, and one clean executor brings it to its
end. Counted is what must never be: an order without an approval, more than was approved, a position across zero, a
ledger that differs from the broker. There is no peer; the target is 0 violations. The ledgers lie in memory where there
is a `/dev/shm`, and do not wait for the disk: what is tried is the death of a process, not of a machine.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stockpicker_dagster_tests.trading.chaos import Stand

MEMORY = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--executions", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--kills", type=int, default=1_000, help="how many of them with real kills (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    options = parser.parse_args()
    began = time.monotonic()
    ends: Counter[str] = Counter()
    killed = crashed = violations = 0
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        stand = Stand(Path(folder))
        for number in range(options.executions):
            seed = options.first + number
            outcome = stand.run(seed, kill=number < options.kills)
            ends[outcome.status] += 1
            killed, crashed = killed + outcome.killed, crashed + outcome.crashed
            violations += bool(outcome.violations)
            if outcome.violations:
                print(f"seed {seed}: {'; '.join(outcome.violations)}", file=sys.stderr, flush=True)
            if not options.json and number % 500 == 499:
                print(f"{number + 1} executions, {violations} violations, {time.monotonic() - began:.0f} s", flush=True)
        stand.close()
    result = {
        "name": "chaos",
        "ours_s": round(time.monotonic() - began, 1),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": 0,
        "runs": options.executions,
        "with_kills": min(options.kills, options.executions),
        "processes_killed": killed,
        "crashes": crashed,
        "ends": dict(ends),
        "violations": violations,
    }
    print(json.dumps({"benchmark": "chaos", "results": [result]}))


if __name__ == "__main__":
    main()

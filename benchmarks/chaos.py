"""Ten thousand randomized executions, a thousand of them ended by a real SIGKILL: how many break a promise?

Each follows from its seed alone: a random book and plan, a broker that drops, repeats, delays and rejects, halts in
mid-basket, flattenings, clocks that jump, executors and traders that die at random instants; then the faults stop, and
one clean executor brings it to its end. Counted is what must never be: an order without an approval, more than was
approved, one after a halt, a position across zero, a ledger that differs from the broker. There is no peer; the target
is 0 violations. The ledgers lie in memory where there is a `/dev/shm`, and do not wait for the disk: what is tried is
the death of a process, not of a machine. With `--progress` a run that was stopped goes on where it was, so take another
file after a change of the code.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stockpicker_dagster_tests.trading.chaos import Stand

MEMORY = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--executions", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--kills", type=int, default=1_000, help="in how many of them a process is killed (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--progress", type=Path, help="a file of what is done so far, gone on from if it exists")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # traders say a lot about such days
    lines = options.progress.read_text().splitlines() if options.progress and options.progress.exists() else []
    done: dict[tuple[int, bool], dict[str, Any]] = {(row["seed"], row["kill"]): row for row in map(json.loads, lines)}
    rows: list[dict[str, Any]] = []
    killed = 0
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        stand = Stand(Path(folder))
        for number in range(options.executions):
            # Spread over the run; not every executor lives until the instant at which it would have been killed.
            wanted = min(options.kills, options.kills * (number + 1) / options.executions / 0.98)
            kill = killed < wanted
            seed = options.first + number
            if (seed, kill) not in done:
                done[seed, kill] = execution(stand, seed, kill)
                if options.progress:
                    with options.progress.open("a") as file:
                        file.write(json.dumps(done[seed, kill]) + "\n")
            rows.append(done[seed, kill])
            killed += bool(rows[-1]["killed"])
            if not options.json and number % 500 == 499:
                print(f"{number + 1} executions, {broken(rows)} violations, {spent(rows):.0f} s of CPU", flush=True)
        stand.close()
    print(json.dumps({"benchmark": "chaos", "results": [summary(rows)]}))


def execution(stand: Stand, seed: int, kill: bool) -> dict[str, Any]:
    """One execution, with the seconds of CPU that it took, its children's included."""
    before = os.times()
    outcome = stand.run(seed, kill)
    if outcome.violations:
        print(f"seed {seed}: {'; '.join(outcome.violations)}", file=sys.stderr, flush=True)
    took = sum(os.times()[:4]) - sum(before[:4])
    return {"kill": kill, **asdict(outcome), "cpu_s": round(took, 3)}


def broken(rows: list[dict[str, Any]]) -> int:
    """How many of the executions broke a promise."""
    return sum(bool(row["violations"]) for row in rows)


def spent(rows: list[dict[str, Any]]) -> float:
    """The seconds of CPU that they took."""
    return sum(row["cpu_s"] for row in rows)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The published figures."""
    return {
        "name": "chaos",
        "ours_s": round(spent(rows), 1),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": 0,
        "runs": len(rows),
        "runs_with_kills": sum(bool(row["killed"]) for row in rows),
        "processes_killed": sum(row["killed"] for row in rows),
        "crashes": sum(row["crashed"] for row in rows),
        "runs_with_traders": sum(row["trader"] for row in rows),
        "runs_flattened": sum(row["flattened"] for row in rows),
        "halts_in_mid_pass": sum(row["halted"] for row in rows),
        "ends": dict(Counter(row["status"] for row in rows)),
        "violations": broken(rows),
    }


if __name__ == "__main__":
    main()

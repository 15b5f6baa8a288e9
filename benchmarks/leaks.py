"""A thousand scorings under invented faults of a cloud: how many leave an endpoint behind, or give other scores?

Each follows from its seed alone: throttling, refusals, lost answers, jobs and endpoints that fail or hang, output that
is cut off, cancelled runs and killed processes, on a SageMaker in memory with a clock of its own. Then the faults stop,
a killed step may start again, and the reaper comes. There is no peer; the target is 0 leaked endpoints.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stockpicker_dagster_tests.training.platforms.fault_runs import FaultRuns
from stockpicker_dagster_tests.training.platforms.served_model import stored_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--runs", type=int, default=1_000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    ends: Counter[str] = Counter()
    broken = reaped = 0
    with tempfile.TemporaryDirectory() as folder:
        runs = FaultRuns(*stored_model(Path(folder)))
        began = time.monotonic()
        for seed in range(options.first, options.first + options.runs):
            outcome = runs.run(seed)
            ends[outcome.ended] += 1
            reaped += outcome.reaped
            if outcome.broken:
                broken += 1
                print(f"seed {seed}: {'; '.join(outcome.broken)}", file=sys.stderr, flush=True)
        took = time.monotonic() - began
    if not options.json:
        said = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
        print(f"{options.runs} runs ({said}), {reaped} things deleted by the reaper, {broken} runs broke a promise")
    result = {
        "name": "leaks",
        "ours_s": round(took, 2),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": 0,
        "runs": options.runs,
        "violations": broken,
    }
    print(json.dumps({"benchmark": "leaks", "results": [result]}))


if __name__ == "__main__":
    main()

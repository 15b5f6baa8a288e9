"""Whether the supervised algorithms find what is there, and whether anything believes what is not.

On simulated markets, through the pipeline's own features, scaling, labels, split, book and verdict. Planted: the rank
IC of scores on two later years as a share of that of the true expected returns, with the alpha that every simulated
market has, and with one that is a product of two characteristics, which no line sees. Noise: markets in which nothing
can be predicted, each learned from and traded before costs; counted is how often the verdict is "weak" or better. There
is no peer. Run it with `.venv/bin/python benchmarks/learning.py [--json]`; it needs the extra `deep` and about ten
minutes of one core. With `--progress FILE` it can be stopped, and goes on from there.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

# Run by path, the project's root is not on the path that modules are looked for on.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stockpicker_dagster.market.sources.simulated import NO_ALPHA, NONLINEAR_ALPHA, PLANTED_ALPHA, PlantedAlpha
from stockpicker_dagster_tests.training.simulated_study import Study

PLANTS = {"planted": PLANTED_ALPHA, "nonlinear": NONLINEAR_ALPHA}
PLANTED_PERIODS = (
    (date(2010, 1, 4), date(2014, 12, 31)),
    (date(2015, 1, 2), date(2015, 12, 31)),
    (date(2016, 1, 4), date(2017, 12, 29)),
)
PLANTED_STOCKS, PLANTED_HORIZON = 150, 1
NOISE_PERIODS = (
    (date(2015, 1, 2), date(2015, 12, 31)),
    (date(2016, 1, 4), date(2016, 6, 30)),
    (date(2016, 7, 1), date(2017, 6, 30)),
)
NOISE_STOCKS, NOISE_NAMES, NOISE_HORIZON, NOISE_LOOKBACK = 40, 8, 5, 63
LEAST_SHARE, MARKETS, MOST_BELIEVED = 0.7, 40, 3
NOISE_SETTINGS: dict[str, dict[str, Any]] = {
    "neural_network": {"ensemble": 1},
    "deep_reinforcement_learning": {"steps": 8192},
}
"""Less work than the defaults: how long it is learned from noise does not change what the verdict has to tell."""
SUPERVISED = ("linear", "boosted_trees", "neural_network")
ALL = (*SUPERVISED, "deep_reinforcement_learning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--seeds", type=int, default=3, help="planted markets of each kind")
    parser.add_argument("--markets", type=int, default=MARKETS, help="markets of noise")
    parser.add_argument("--only", nargs="*", default=ALL, choices=ALL, help="only these algorithms")
    parser.add_argument("--progress", type=Path, help="a file of what is done so far, gone on from if it exists")
    options = parser.parse_args()
    done = Done(options.progress, show=not options.json)
    for seed, plant in product(range(options.seeds), PLANTS):
        for name in (each for each in SUPERVISED if each in options.only):
            done.make(plant, name, seed, partial(shares, plant))
    for seed, name in product(range(options.markets), options.only):
        done.make("noise", name, seed, verdicts)
    results = [told(done, plant, name) for plant in PLANTS for name in SUPERVISED if name in options.only]
    results += [told_of_noise(done, name) for name in options.only]
    if not options.json:
        for result in results:
            print(result)
    print(json.dumps({"benchmark": "learning", "results": results}))


class Done:
    """What was found, by kind, algorithm and seed; kept line by line in a file, if there is one."""

    def __init__(self, file: Path | None, show: bool) -> None:
        self.file, self.show = file, show
        lines = file.read_text().splitlines() if file and file.exists() else []
        self.rows: dict[tuple[str, str, int], dict[str, Any]] = {
            (row["kind"], row["name"], row["seed"]): row for row in map(json.loads, lines)
        }

    def make(self, kind: str, name: str, seed: int, found: Callable[[str, int], Mapping[str, Any]]) -> None:
        """Find it out, unless it is there."""
        if (kind, name, seed) in self.rows:
            return
        began = time.process_time()
        row = {
            "kind": kind,
            "name": name,
            "seed": seed,
            **found(name, seed),
            "cpu_s": round(time.process_time() - began, 1),
        }
        self.rows[kind, name, seed] = row
        if self.file:
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if self.show:
            print(row, file=sys.stderr, flush=True)

    def of(self, kind: str, name: str) -> list[dict[str, Any]]:
        """All rows of a kind and an algorithm."""
        return [
            row for (its_kind, its_name, _), row in sorted(self.rows.items()) if (its_kind, its_name) == (kind, name)
        ]


@lru_cache(maxsize=1)
def planted_study(plant: str, seed: int) -> Study:
    """A market of five years to learn from, one to choose on and two to be tested on."""
    alpha: PlantedAlpha = PLANTS[plant]
    return Study.of(alpha, 7 + seed, PLANTED_STOCKS, PLANTED_PERIODS, PLANTED_HORIZON)


@lru_cache(maxsize=1)
def noise_study(seed: int) -> Study:
    """A market of one year to learn from, half a one to choose on and one to be traded."""
    return Study.of(NO_ALPHA, 500 + seed, NOISE_STOCKS, NOISE_PERIODS, NOISE_HORIZON, NOISE_LOOKBACK)


def shares(plant: str, name: str, seed: int) -> Mapping[str, Any]:
    """The rank IC of default settings, and that of the truth."""
    study = planted_study(plant, seed)
    found, achievable = study.rank_ics(study.fit(name, {}, seed))
    return {"rank_ic": found, "achievable": achievable}


def verdicts(name: str, seed: int) -> Mapping[str, Any]:
    """The words of the verdict on one market of noise."""
    study = noise_study(seed)
    return {"words": study.words(study.fit(name, NOISE_SETTINGS.get(name, {}), seed), NOISE_NAMES)}


def told(done: Done, plant: str, name: str) -> dict[str, Any]:
    """The median share of the achievable rank IC."""
    rows = done.of(plant, name)
    each = [row["rank_ic"] / row["achievable"] for row in rows]
    lines = [row["rank_ic"] / row["achievable"] for row in done.of(plant, "linear")]
    better = plant == "nonlinear" and name != "linear" and lines
    return {
        "name": f"{plant}_{name}",
        "seeds": len(rows),
        "share_of_achievable_rank_ic": round(statistics.median(each), 3) if each else None,
        "of_each": [round(share, 3) for share in each],
        "achievable_rank_ic": round(statistics.median(row["achievable"] for row in rows), 4) if rows else None,
        "ours_s": round(statistics.median(row["cpu_s"] for row in rows), 1) if rows else None,
        "peer": "linear" if better else None,
        "peer_share": round(statistics.median(lines), 3) if better else None,
        "peer_s": None,
        "ratio": None,
        "target": "more than linear" if plant == "nonlinear" else f"at least {LEAST_SHARE}",
    }


def told_of_noise(done: Done, name: str) -> dict[str, Any]:
    """How many markets of noise were believed."""
    rows = done.of("noise", name)
    return {
        "name": f"noise_{name}",
        "markets": len(rows),
        "believed": sum(row["words"] != "cannot be told from luck" for row in rows),
        "ours_s": round(sum(row["cpu_s"] for row in rows), 1),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": f"at most {MOST_BELIEVED} of {MARKETS}",
    }


if __name__ == "__main__":
    main()

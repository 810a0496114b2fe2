"""The whole product of databases and deployments, killed at every step and by the clock: ``make soak``.

Prints how many kills there were and after how many the recovered run differed from the uninterrupted one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from perennial.core.failpoints import NAMES
from tests import postgres
from tests.crash import deployments, serving, test_power
from tests.crash.test_kill import children, place_of, same


def main() -> int:
    """Kill, recover and compare; 1 if anything differed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--kills", type=int, default=1000, help="kills by the clock")
    words.add_argument("--seed", type=int, default=0)
    asked = words.parse_args()
    chance, began = random.Random(asked.seed), time.monotonic()
    kills = differed = 0
    with tempfile.TemporaryDirectory() as folder, children() as child, postgres.schema() as served:
        root = Path(folder)
        expected, took = {}, {}
        for strategy in deployments.STRATEGIES:
            place, url = place_of(root, "straight")
            before = time.monotonic()
            assert child(strategy, url, place) == 0
            took[strategy] = time.monotonic() - before
            expected[strategy] = deployments.remembered(deployments.deployment(strategy, url, place))

        def check(strategy: str, url: str, place: Path, plan: list[str], turns: str) -> tuple[int, int]:
            died = sum(child(strategy, url, place, failpoint, turns) != 0 for failpoint in plan)
            assert child(strategy, url, place) == 0
            try:
                same(expected[strategy], deployments.remembered(deployments.deployment(strategy, url, place)))
            except AssertionError as error:
                print(f"{strategy} on {url}, killed at {plan}: differs in {error}")
                return died, 1
            finally:
                shutil.rmtree(place)
            return died, 0

        pairs = [(at, strategy) for at in ("", served) for strategy in deployments.STRATEGIES]
        for at, strategy in pairs:
            for name in NAMES:
                place, url = place_of(root, strategy, at)
                died, wrong = check(strategy, url, place, [f"{name}:{chance.randint(1, 4)}", name], "")
                kills, differed = kills + died, differed + wrong
        print(f"at every step: {kills} kills, {differed} differed ({time.monotonic() - began:.0f} s)", flush=True)
        by_clock = 0
        while by_clock < asked.kills:
            at, strategy = chance.choice(pairs)
            place, url = place_of(root, strategy, at)
            plan = [f"clock:{chance.uniform(0.02, 1.1 * took[strategy]):.3f}" for _ in range(chance.randint(1, 12))]
            died, wrong = check(strategy, url, place, plan, "")
            by_clock, differed = by_clock + died, differed + wrong
        kills += by_clock
        print(f"by the clock: {by_clock} kills ({time.monotonic() - began:.0f} s)", flush=True)
        for strategy in ("sgd", "classes") if shutil.which("strace") else ():
            (cut := root / f"power-{strategy}").mkdir()
            wanted = test_power.straight(cut, child, strategy)
            images, _ = test_power.recovered(cut, child, strategy, test_power.recorded(cut, child, strategy), wanted)
            print(f"{strategy}: {images} images of a power cut, all recovered ({time.monotonic() - began:.0f} s)")
        for seed, ledger in enumerate(("sqlite:///.perennial/ledger.db", served)):
            some = max(asked.kills // 50, 3)
            print(serving.nothing_lost(root / f"served-{seed}", kills=some, seed=asked.seed + seed, ledger=ledger))
    print(f"{kills} kills, {differed} runs differed; PostgreSQL: {postgres.URL}")
    return int(differed > 0)


if __name__ == "__main__":
    raise SystemExit(main())

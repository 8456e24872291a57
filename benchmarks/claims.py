"""Does timing claim what is not there? Models timed against themselves, as ``graphopt bench A A`` does.

python -m benchmarks.claims MODEL.onnx ... --times 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

from graphopt.bench import bench
from graphopt.ir.model import Model

QUIET = "no difference beyond noise"


def main() -> None:
    """Print how often a difference was claimed, and how wide the intervals were."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    print("| model | p50, ms | comparisons | claims | ratios found | widest interval |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in given.models:
        found = [bench(Model.load(path), Model.load(path)) for _ in range(given.times)]
        ratios = [entry.ratio for entry in found if entry.ratio is not None]
        claims = sum(entry.claim != QUIET for entry in found)
        medians = [ratio.median for ratio in ratios]
        widest = max(ratio.high / ratio.low - 1 for ratio in ratios)
        print(
            f"| {path.stem} | {1e3 * found[0].first.p50:.3f} | {given.times} | {claims} | "
            f"{min(medians):.3f} to {max(medians):.3f} | {100 * widest:.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()

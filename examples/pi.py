"""Estimate pi: how many of many random points in the unit square lie in the quarter circle?

python examples/pi.py --calls 16 --points 1000000
"""

import argparse
import random

import lithops_mini as lm


def hits(seed: int, points: int) -> int:
    """Of ``points`` random points, how many are within distance one of the origin?"""
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(points))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=16, help="how many function calls (default: %(default)s)")
    parser.add_argument("--points", type=int, default=1_000_000, help="points for each call (default: %(default)s)")
    parser.add_argument("--backend", help="where the functions run (default: as configured, else localhost)")
    args = parser.parse_args()
    with lm.function_executor(backend=args.backend) as executor:
        executor.map(hits, range(args.calls), extra_args={"points": args.points})
        inside = sum(executor.get_result())
    print(f"pi is about {4 * inside / (args.calls * args.points):.5f}")


if __name__ == "__main__":
    main()

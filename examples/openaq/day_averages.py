"""The average of each pollutant at each station on each day, from OpenAQ's measurements, one JSON object a line.

python examples/openaq/day_averages.py ./measurements/            # files of this machine
python examples/openaq/day_averages.py my-bucket/2024/ --backend aws_lambda --workers 64
"""

import argparse
import json
from collections import defaultdict

import lithops_mini as lm

MISSING = -999  # of sensors that did not measure


def partial_sums(obj):
    sums = defaultdict(lambda: [0, 0.0])
    for line in obj.data_stream:
        row = json.loads(line)
        if row["value"] != MISSING:
            entry = sums[row["location"], row["parameter"], row["date"]["utc"][:10]]
            entry[0] += 1
            entry[1] += row["value"]
    return dict(sums)


def averages(results):
    sums = defaultdict(lambda: [0, 0.0])
    for part in results:
        for key, (count, total) in part.items():
            sums[key][0] += count
            sums[key][1] += total
    return {key: total / count for key, (count, total) in sorted(sums.items())}


parser = argparse.ArgumentParser()
parser.add_argument("data", help="bucket/prefix/, ./directory/ or ./file")
parser.add_argument("--backend")
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--chunk-size", default="8MiB", help="bytes of each call (default: %(default)s)")
args = parser.parse_args()

with lm.function_executor(backend=args.backend, max_workers=args.workers) as executor:
    executor.map_reduce(partial_sums, args.data, averages, obj_chunk_size=args.chunk_size)
    for (location, parameter, day), average in executor.get_result().items():
        print(f"{location}\t{parameter}\t{day}\t{average:.4f}")

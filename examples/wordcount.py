"""Count the words of text files or objects, in byte ranges cut at line ends.

python examples/wordcount.py ./README.md ./docs/        # or bucket/key, bucket/prefix/, https://...
"""

import argparse
from collections import Counter

import lithops_mini as lm


def count_words(obj):
    return Counter(word for line in obj.data_stream for word in line.decode("utf-8", "replace").lower().split())


def add_up(results):
    return sum(results, Counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+", help="./file, ./directory/, bucket/key, bucket/prefix/ or URL")
    parser.add_argument("--chunk-size", default="16MiB", help="bytes for each call (default: %(default)s)")
    parser.add_argument("--top", type=int, default=10, help="how many words to print (default: %(default)s)")
    parser.add_argument("--backend", help="where the functions run (default: as configured, else localhost)")
    args = parser.parse_args()
    with lm.function_executor(backend=args.backend) as executor:
        executor.map_reduce(count_words, args.data, add_up, obj_chunk_size=args.chunk_size)
        words = executor.get_result()
    print(f"{words.total()} words, {len(words)} different ones")
    for word, count in words.most_common(args.top):
        print(f"{count:8} {word}")


if __name__ == "__main__":
    main()

"""What jobs cost: from what they have used, and a table of prices, to a bill.

Everything that tells of costs goes this way: the summary, the report, estimates, budgets and the command line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from lithops_mini.errors import ConfigError
from lithops_mini.records import NO_REQUESTS, CallStats, Platform, Requests, Usage
from lithops_mini.shorten import shorten

LAMBDA = "aws_lambda"
_STORAGE = "aws_s3"
LEAST_MEMORY, MOST_MEMORY = 128, 10_240
"""MiB of a function of AWS Lambda."""
PROCESSOR = 1769
"""MiB that come with one processor on AWS Lambda; with less there is less of it."""

_FREE_DISK = 512  # MiB
_MARGIN = 1.25  # of memory over the peak that was seen
_STEP = 64  # MiB between sizes that are advised
_BESIDE = 64  # MiB that a worker's own processes hold, where only those of the calls were measured
_NAME_WIDTH = 18
_STAGES = 4  # in a table; with more of them the first are added up
_HEADINGS = ("", "invocations", "memory", "GB-seconds", "put/post/list", "get/head", "dollars")


@dataclass(frozen=True)
class Prices:
    """Dollars by ``service.what``, as the table has them and the user has changed them."""

    date: str
    region: str
    values: Mapping[str, float]
    services: Mapping[str, str]  # their names for people
    unpriced: Mapping[str, str]  # why backends have no price
    own: tuple[str, ...] = ()  # those that the user has changed

    def of(self, service: str, what: str) -> float:
        return self.values[f"{service}.{what}"]


def read_prices(own: Mapping[str, float] | None = None) -> Prices:
    """The shipped prices, and the user's own in their place. ``ConfigError`` for one that is not in the table."""
    shipped = _shipped()
    if not own:
        return shipped
    for name, price in own.items():
        if name not in shipped.values:
            raise ConfigError(f"prices: there is no price {name!r}; there are {', '.join(shipped.values)}")
        if not 0 <= price < math.inf:
            raise ConfigError(f"prices: {name} is {price!r}: give dollars, 0 or more")
    return replace(shipped, values={**shipped.values, **own}, own=tuple(own))


@cache
def _shipped() -> Prices:
    import yaml

    table: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text())
    services = table["services"]
    values = {f"{service}.{what}": price for service in services for what, price in services[service]["prices"].items()}
    names = {service: services[service]["name"] for service in services}
    return Prices(str(table["date"]), table["region"], values, names, table["unpriced"])


@dataclass(frozen=True, slots=True)
class Stage:
    """What is known of a job."""

    name: str
    calls: Sequence[CallStats]
    usage: Usage

    @property
    def requests(self) -> Requests:
        """Those of its workers to storage."""
        found = self.usage.requests
        return Requests(
            found.puts + sum(call.storage_puts for call in self.calls),
            found.gets + sum(call.storage_gets for call in self.calls),
            found.deletes + sum(call.storage_deletes for call in self.calls),
        )

    @property
    def peak(self) -> int:
        """MiB that a worker has held at most; 0 if that is not known."""
        measured = -(-max((call.peak_memory for call in self.calls), default=0) >> 20)
        if self.usage.peak:  # of the whole sandbox, unless that is made of processes
            return max(self.usage.peak, measured)
        return measured + _BESIDE if measured else 0


@dataclass(frozen=True, slots=True)
class Cost:
    """A line of a bill: what was used, and the dollars for it."""

    name: str
    invocations: float = 0
    memory: int = 0  # MiB: the most there were
    seconds: float = 0.0  # billed
    gb_seconds: float = 0.0
    requests: Requests = NO_REQUESTS
    time_dollars: float = 0.0  # with those for a larger disk
    invocation_dollars: float = 0.0
    storage_dollars: float = 0.0

    @property
    def dollars(self) -> float:
        return self.time_dollars + self.invocation_dollars + self.storage_dollars


def cost(
    name: str, usage: Usage, requests: Requests, platform: Platform, prices: Prices, *, memory: int = LEAST_MEMORY
) -> Cost:
    """The price of what was used. ``requests``: all that are to be paid. ``memory``: MiB where nobody has set any."""
    service = platform.service or LAMBDA
    storage = platform.storage if platform.storage in prices.services else _STORAGE
    gigabyte_second = prices.of(service, f"{platform.architecture}_gb_second")
    disk = max(0, platform.disk - _FREE_DISK) / 1024 * prices.of(service, "disk_gb_second")
    sizes = {
        size: min(max(size or platform.memory or memory, LEAST_MEMORY), MOST_MEMORY) for size in usage.milliseconds
    }
    seconds = math.fsum(usage.milliseconds.values()) / 1000
    gb_seconds = math.fsum(sizes[size] / 1024 * spent / 1000 for size, spent in usage.milliseconds.items())
    return Cost(
        name,
        usage.invocations,
        max(sizes.values(), default=0),
        seconds,
        gb_seconds,
        requests,
        gb_seconds * gigabyte_second + seconds * disk,
        usage.invocations * prices.of(service, "request"),
        math.fsum(
            number * prices.of(storage, what) for number, what in zip(requests, ("put", "get", "delete"), strict=True)
        ),
    )


def total(name: str, costs: Iterable[Cost]) -> Cost:
    """All of them in one line."""
    costs = list(costs)
    requests = NO_REQUESTS
    for each in costs:
        requests = requests.plus(each.requests)
    return Cost(
        name,
        sum(each.invocations for each in costs),
        max((each.memory for each in costs), default=0),
        math.fsum(each.seconds for each in costs),
        math.fsum(each.gb_seconds for each in costs),
        requests,
        math.fsum(each.time_dollars for each in costs),
        math.fsum(each.invocation_dollars for each in costs),
        math.fsum(each.storage_dollars for each in costs),
    )


@dataclass(frozen=True, slots=True)
class Advice:
    """How much memory would have been enough for a stage."""

    stage: str
    memory: int  # MiB that there were
    peak: int  # MiB that were used
    enough: int  # MiB: the peak and a quarter, in steps of 64
    saved: float  # dollars
    share: float  # of what its time has cost
    slower: float  # by this factor its calls would have taken longer, with less of a processor

    def __str__(self) -> str:
        held = f"{self.stage} held at most {self.peak:,} of {self.memory:,} MiB"
        if self.enough >= self.memory:
            return f"{held}: no less would do."
        longer = f" Its calls would have taken {self.slower:.1f} times as long." if self.slower >= 1.05 else ""
        saved = f"saved {dollars(self.saved)} ({self.share:.0%})" if self.share >= 0.005 else "saved nothing"
        return f"{held}: {self.enough:,} would have been enough, and have {saved}.{longer}"


def advise(stage: Stage, platform: Platform, prices: Prices) -> Advice | None:
    """The memory that would have been enough; ``None`` where none was set, or it is not known how much was used.

    Lambda gives processors by memory. So the time that the calls' processors were busy is stretched, as if a call had
    one thread, and the time that they waited is not.
    """
    usage = stage.usage
    sized = {memory: spent for memory, spent in usage.milliseconds.items() if memory}
    peak = stage.peak
    if not sized or not peak:
        return None
    memory = max(sized)
    enough = min(max(math.ceil(peak * _MARGIN / _STEP) * _STEP, LEAST_MEMORY), MOST_MEMORY)
    before = cost("", usage, NO_REQUESTS, platform, prices)
    processor = math.fsum(call.cpu_user + call.cpu_system for call in stage.calls)
    had = min(1.0, memory / PROCESSOR) if platform.service else 1.0
    busy = min(before.seconds, processor / had)
    seconds = before.seconds - busy + max(busy, processor / min(1.0, enough / PROCESSOR))
    after = cost("", Usage({enough: math.ceil(seconds * 1000)}), NO_REQUESTS, platform, prices)
    saved = max(0.0, before.time_dollars - after.time_dollars) if enough < memory else 0.0
    share = saved / before.time_dollars if before.time_dollars else 0.0
    return Advice(stage.name, memory, peak, enough, saved, share, seconds / before.seconds if before.seconds else 1.0)


@dataclass(frozen=True, slots=True)
class Bill:
    """What jobs have cost, by stage and in all; or would have, on AWS Lambda, where nobody charges for them."""

    stages: tuple[Cost, ...]
    client: Cost  # requests that the client sent for all of them
    platform: Platform
    prices: Prices
    advice: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = field(default=())  # what could not be known, and what was assumed

    @property
    def total(self) -> Cost:
        return total("total", [*self.stages, self.client])

    @property
    def dollars(self) -> float:
        return self.total.dollars

    @property
    def title(self) -> str:
        """What it is a bill of, and of which day the prices are."""
        prices = self.prices
        dated = f"prices of {prices.date}, {prices.region}" + (", and your own" if prices.own else "")
        what = prices.services[self.platform.service or LAMBDA]
        if self.platform.storage in prices.services:
            what += f" and {prices.services[self.platform.storage]}"
        return f"Cost on {what} ({dated})" if self.platform.service else f"It would have cost on {what} ({dated})"

    def rows(self) -> list[list[str]]:
        """Headings, a row for each stage, one for the client and one for all."""
        stages = list(self.stages)
        if len(stages) > _STAGES:
            earlier = len(stages) - _STAGES + 1
            stages[:earlier] = [total(f"{earlier} earlier", stages[:earlier])]
        lines = [*stages, *([self.client] if self.client.requests != NO_REQUESTS else []), self.total]
        return [list(_HEADINGS), *map(_cells, lines)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "prices": self.prices.date,
            "stages": list(map(_plain, self.stages)),
            "client": _plain(self.client),
            "total": _plain(self.total),
            "advice": list(map(asdict, self.advice)),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """As text: title, table, advice, notes; without a final newline."""
        return "\n".join([f"{self.title}:", *align(self.rows()), *map(str, self.advice), *self.notes])


def bill(
    stages: Iterable[Stage],
    platform: Platform,
    prices: Prices,
    *,
    backend: str = "",
    client_requests: Requests | None = None,
) -> Bill:
    """The bill for jobs that have ended, or for what they have used until now.

    ``backend``: the name of what ran them; ``client_requests``: to storage, ``None`` if nobody counts them.
    """
    stages = [stage for stage in stages if stage.usage.invocations or stage.calls]
    costs = [
        cost(stage.name, stage.usage, stage.requests, platform, prices, memory=max(stage.peak, LEAST_MEMORY))
        for stage in stages
    ]
    client = cost("client", Usage(), client_requests or NO_REQUESTS, platform, prices)
    advice = tuple(found for stage in stages if (found := advise(stage, platform, prices)) is not None)
    notes = _notes(stages, platform, prices, backend, counted=client_requests is not None)
    return Bill(tuple(costs), client, platform, prices, advice[-_STAGES:], tuple(notes))


def _notes(
    stages: Sequence[Stage], platform: Platform, prices: Prices, backend: str, *, counted: bool
) -> Iterable[str]:
    usage = sum_up(stage.usage for stage in stages)
    if not platform.service:
        why = prices.unpriced.get(backend, "nobody charges for what runs the calls")
        yield f"Nothing was charged for the calls: {why}. The time is that of this run."
        if 0 in usage.milliseconds:
            yield "The memory is the least over what was held: set runtime_memory for another size."
    elif usage.untold:
        which = f"{usage.untold:,} of {usage.invocations:,} invocations"
        yield f"{which} did not tell their time: it is as the client saw it."
    if any(call.status in ("died", "timeout", "out_of_memory") or call.attempt > 1 for s in stages for call in s.calls):
        yield "Requests to storage by workers that were lost are not known."
    if not counted:
        yield "Requests to storage are not known, and not in it."
    if platform.region and platform.region != prices.region:
        yield f"The jobs ran in {platform.region}: its own prices can be set as prices in the configuration."
    yield "Not in it: data kept and moved, logs, taxes; free tiers are not taken off."


def sum_up(usages: Iterable[Usage]) -> Usage:
    """All of them together."""
    together = Usage()
    for usage in usages:
        together = together.plus(usage)
    return together


def _plain(line: Cost) -> dict[str, Any]:
    return asdict(line) | {"requests": line.requests._asdict(), "dollars": line.dollars}


def _cells(line: Cost) -> list[str]:
    used = [f"{line.invocations:,.0f}", f"{line.memory:,}" if line.memory else "", _three_digits(line.gb_seconds)]
    requests = [f"{line.requests.puts:,}", f"{line.requests.gets:,}"]
    return [shorten(line.name, _NAME_WIDTH), *(used if line.memory else [""] * 3), *requests, dollars(line.dollars)]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines in which columns are under each other: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows)
    return list(lines)


def dollars(amount: float) -> str:
    """An amount of money, with three digits that tell if it is small."""
    return f"${amount:,.2f}" if amount >= 1 or amount <= 0 else f"${_three_digits(amount)}"


def _three_digits(amount: float) -> str:
    """With three digits that tell, and all of those of a large number."""
    return f"{amount:,.{min(12, max(0, 2 - math.floor(math.log10(amount))))}f}" if amount > 0 else "0"

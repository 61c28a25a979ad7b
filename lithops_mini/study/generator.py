"""Measurements of the air as OpenAQ publishes them, one JSON object a line: the same bytes on every machine.

A file is a slice of 144 minutes, of which a day has ten. It depends on the seed, its number and the number of stations,
and on nothing else: not on other files, nor on the order in which they are made.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from typing import NamedTuple

from lithops_mini.study.stations import POLLUTANTS, STATIONS, Station, make_stations

SLICE = 144
"""Minutes of a file."""
SIZE = 3331
"""Bytes of a file for each of its stations, in the mean."""
MISSING = -999
"""What sensors say that did not measure."""

_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
_LEVELS = 4096  # steps of a distribution
_LATEST = 36  # hours that a line may be late
_BLOCK = 2000  # lines that are handed on at a time
# Of what is left of a throw once it has chosen one of the levels: what becomes of the line.
_FAILED, _ZERO, _TWICE, _LATE = 0.004, 0.010, 0.015, 0.023


class _Sensor(NamedTuple):
    """The parts of a line that are the same all the time, and what its values depend on."""

    after: str  # between local time and value
    end: str  # after the value
    median: float
    decimals: int
    levels: list[float]  # of the distribution
    course: list[float]  # over the hours of the local day
    seasons: list[float]  # over the days of the year


class _Station(NamedTuple):
    head: str  # up to the time
    minute: int
    ahead: int
    sensors: list[_Sensor]


def lines(seed: int, number: int, stations: int = STATIONS) -> Iterator[bytes]:
    """The file of this number, in blocks of whole lines.

    Lines are in the order of their hours. Some are late: they tell of up to 36 hours before. Some come twice, some
    sensors have not measured (-999), and some have measured nothing (0).
    """
    ready = _prepare(make_stations(seed, stations))
    dice = random.Random(f"lines {seed} {number}").random
    start = number * SLICE
    block: list[str] = []
    for hour in range(start // 60, (start + SLICE - 1) // 60 + 1):
        clock = _Clock(hour)
        for station in ready:
            if start <= 60 * hour + station.minute < start + SLICE:
                _measure(block, station, clock, dice)
                if len(block) >= _BLOCK:
                    yield "".join(block).encode()
                    block.clear()
    yield "".join(block).encode()


class _Clock:
    """Times of one hour as texts."""

    def __init__(self, hour: int) -> None:
        self._begin = _BEGIN + timedelta(hours=hour)
        self.hour = self._begin.hour
        self.day = self._begin.timetuple().tm_yday - 1
        self._texts: dict[tuple[int, int, int], str] = {}

    def text(self, minute: int, ahead: int, late: int) -> str:
        """The time in UTC and where clocks are so many minutes ahead; so many hours before."""
        key = minute, ahead, late
        if key not in self._texts:
            time = self._begin + timedelta(minutes=minute, hours=-late)
            local = time + timedelta(minutes=ahead)
            hours, minutes = divmod(abs(ahead), 60)
            zone = f"{'-' if ahead < 0 else '+'}{hours:02}:{minutes:02}"
            self._texts[key] = f'{time:%Y-%m-%dT%H:%M:%S}.000Z","local":"{local:%Y-%m-%dT%H:%M:%S}{zone}'
        return self._texts[key]


def _measure(block: list[str], station: _Station, clock: _Clock, dice: Callable[[], float]) -> None:
    minute, ahead = station.minute, station.ahead
    now = clock.text(minute, ahead, 0)
    hour, day = (clock.hour + ahead // 60) % 24, clock.day
    for sensor in station.sensors:
        throw = dice() * _LEVELS
        level = int(throw)
        rest = throw - level
        value = sensor.median * sensor.levels[level] * sensor.course[hour] * sensor.seasons[day]
        text, time = f"{value:.{sensor.decimals}f}", now
        if rest < _LATE:
            if rest < _FAILED:
                text = str(MISSING)
            elif rest < _ZERO:
                text = "0"
            elif rest >= _TWICE:
                time = clock.text(minute, ahead, 1 + level % _LATEST)
        line = f"{station.head}{time}{sensor.after}{text}{sensor.end}"
        block.append(line)
        if _ZERO <= rest < _TWICE:
            block.append(line)


def _prepare(stations: list[Station]) -> list[_Station]:
    """What of each station's lines does not change."""
    normal = [NormalDist().inv_cdf((step + 0.5) / _LEVELS) for step in range(_LEVELS)]
    # Rounded, since logarithms and cosines are not the same to the last digit everywhere.
    levels = [[round(math.exp(each.spread * z), 6) for z in normal] for each in POLLUTANTS]
    courses = [[round(1 + each.rush * _rush(hour), 6) for hour in range(24)] for each in POLLUTANTS]
    winters = [math.cos(math.tau * day / 366) for day in range(366)]
    north = [[round(1 + each.winter * winter, 6) for winter in winters] for each in POLLUTANTS]
    south = [[round(1 - each.winter * winter, 6) for winter in winters] for each in POLLUTANTS]
    ready = []
    for station in stations:
        seasons = north if station.latitude >= 0 else south
        end = _end(station)
        sensors = [
            _Sensor(
                f'"}},"parameter":"{POLLUTANTS[each.pollutant].name}","value":',
                f',"unit":"{each.unit}"{end}',
                each.median,
                each.decimals,
                levels[each.pollutant],
                courses[each.pollutant],
                seasons[each.pollutant],
            )
            for each in station.sensors
        ]
        ready.append(_Station(_head(station), station.minute, station.ahead, sensors))
    return ready


def _rush(hour: int) -> float:
    """From -1 at night to 1 in the rush hours of the morning and the evening."""
    return math.cos(math.tau * (hour - 8) / 24) if hour < 14 else math.cos(math.tau * (hour - 19) / 24)


def _head(station: Station) -> str:
    place = {
        "country": station.country,
        "city": station.city,
        "location": station.location,
        "coordinates": {"latitude": station.latitude, "longitude": station.longitude},
    }
    return f'{_text(place)[:-1]},"date":{{"utc":"'


def _end(station: Station) -> str:
    rest = {
        "averagingPeriod": {"unit": "hours", "value": 1},
        "attribution": [{"name": station.source, "url": station.url}],
        "sourceName": station.source,
        "sourceType": station.kind,
        "mobile": False,
    }
    return f",{_text(rest)[1:]}\n"


def _text(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

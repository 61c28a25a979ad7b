"""Stations that measure the air, in the shape of OpenAQ's: the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

STATIONS = 8000
"""As many as OpenAQ has, roughly."""

# Country | share of the stations | minutes ahead of UTC | how bad its air is | its network | of what kind | its
# address | cities with latitude and longitude.
_COUNTRIES = """
US|200|-360|0.6|AirNow|government|https://www.airnow.gov/|New York 40.713 -74.006, Los Angeles 34.052 -118.244, \
Chicago 41.878 -87.630, Houston 29.760 -95.370, Denver 39.739 -104.990, Fresno 36.738 -119.787
CN|150|480|2.6|ChinaAQI|government|http://www.cnemc.cn/|Beijing 39.904 116.407, Shanghai 31.230 121.474, \
Chengdu 30.573 104.066, Xi'an 34.342 108.940, Guangzhou 23.129 113.264
IN|45|330|3.4|CPCB|government|https://app.cpcbccr.com/|Delhi 28.644 77.216, Mumbai 19.076 72.878, \
Kolkata 22.573 88.364, Lucknow 26.847 80.947
DE|60|60|0.7|EEA Germany|government|http://www.eea.europa.eu/|Berlin 52.520 13.405, Stuttgart 48.776 9.183, \
Hamburg 53.551 9.994, Leipzig 51.340 12.375
ES|70|60|0.7|EEA Spain|government|http://www.eea.europa.eu/|Madrid 40.417 -3.704, Barcelona 41.385 2.173, \
Tarragona 41.119 1.245, Sevilla 37.389 -5.984
FR|60|60|0.7|EEA France|government|http://www.eea.europa.eu/|Paris 48.857 2.352, Lyon 45.764 4.836, \
Marseille 43.297 5.370, Lille 50.629 3.057
IT|45|60|1.0|EEA Italy|government|http://www.eea.europa.eu/|Milano 45.464 9.190, Torino 45.070 7.687, \
Roma 41.903 12.496, Padova 45.406 11.877
GB|30|0|0.6|DEFRA|government|https://uk-air.defra.gov.uk/|London 51.507 -0.128, Manchester 53.481 -2.242, \
Glasgow 55.864 -4.252
PL|30|60|1.3|GIOS|government|http://powietrze.gios.gov.pl/|Kraków 50.065 19.945, Warszawa 52.230 21.012, \
Katowice 50.265 19.024
NL|20|60|0.6|Netherlands|government|http://www.luchtmeetnet.nl/|Rotterdam 51.924 4.478, Amsterdam 52.368 4.904
NO|12|60|0.4|Norway|government|http://luftkvalitet.info/|Oslo 59.914 10.752, Bergen 60.393 5.324
TR|25|180|1.4|EEA Turkey|government|http://www.eea.europa.eu/|İstanbul 41.008 28.978, Ankara 39.933 32.860, \
İzmir 38.424 27.143
CL|18|-240|1.3|Chile - SINCA|government|http://sinca.mma.gob.cl/|Santiago -33.449 -70.669, Temuco -38.736 -72.590
BR|15|-180|0.8|CETESB|government|http://cetesb.sp.gov.br/|São Paulo -23.551 -46.633, Campinas -22.906 -47.061
MX|15|-360|1.2|Sinaica Mexico|government|https://sinaica.inecc.gob.mx/|Ciudad de México 19.433 -99.133, \
Monterrey 25.687 -100.316, Guadalajara 20.660 -103.350
CO|8|-300|0.9|Bogota|government|http://rmcab.ambientebogota.gov.co/|Bogotá 4.711 -74.072
PE|6|-300|1.5|SENAMHI|government|https://www.senamhi.gob.pe/|Lima -12.046 -77.043
AU|20|600|0.5|Australia - New South Wales|government|http://www.environment.nsw.gov.au/|Sydney -33.869 151.209, \
Newcastle -32.928 151.782
TW|12|480|1.1|Taiwan|government|https://taqm.epa.gov.tw/|Taipei 25.033 121.565, Kaohsiung 22.627 120.301
TH|12|420|1.5|Thailand|government|http://aqmthai.com/|Bangkok 13.756 100.502, Chiang Mai 18.787 98.993
MN|4|480|2.9|Agaar.mn|research|http://www.agaar.mn/|Ulaanbaatar 47.886 106.906
BD|3|360|4.0|StateAir_Dhaka|government|http://www.stateair.net/|Dhaka 23.810 90.413
NP|3|345|3.1|Nepal|government|http://pollution.gov.np/|Kathmandu 27.717 85.324
ZA|15|120|1.3|South Africa|government|http://saaqis.environment.gov.za/|Johannesburg -26.204 28.047, \
Cape Town -33.925 18.424, Durban -29.859 31.022
ET|2|180|1.8|StateAir_AddisAbaba|government|http://www.stateair.net/|Addis Ababa 9.030 38.740
IL|15|120|1.1|Israel|government|http://www.svivaaqm.net/|Tel Aviv 32.085 34.782, Haifa 32.794 34.990
"""

_PLACES = ("Centro", "Station", "Park", "Harbour", "University", "Airport", "North", "South", "East", "West", "Ring")


class Pollutant(NamedTuple):
    """How much there is of it: values have a log-normal distribution."""

    name: str
    unit: str
    share: float  # of the stations that measure it
    median: float
    spread: float  # the standard deviation of its logarithm
    decimals: int
    winter: float  # how much more there is in winter than in the mean
    rush: float  # and in rush hours
    ppm: float = 0.0  # for one µg/m³, of gases that stations of the United States tell in ppm


POLLUTANTS = (
    Pollutant("pm25", "µg/m³", 0.55, 12.0, 0.75, 1, 0.45, 0.25),
    Pollutant("pm10", "µg/m³", 0.60, 22.0, 0.70, 1, 0.35, 0.25),
    Pollutant("no2", "µg/m³", 0.65, 18.0, 0.80, 2, 0.30, 0.45, 0.00053),
    Pollutant("o3", "µg/m³", 0.60, 52.0, 0.55, 2, -0.35, -0.30, 0.00051),
    Pollutant("so2", "µg/m³", 0.40, 4.0, 0.95, 2, 0.25, 0.10, 0.00038),
    Pollutant("co", "µg/m³", 0.35, 420.0, 0.80, 0, 0.35, 0.40, 0.00087),
    Pollutant("bc", "µg/m³", 0.02, 0.9, 0.90, 3, 0.40, 0.35),
)


class Sensor(NamedTuple):
    """What one station measures of one pollutant."""

    pollutant: int  # of POLLUTANTS
    unit: str
    median: float  # of its values over the year
    decimals: int


class Station(NamedTuple):
    """A place, and what is measured there once an hour."""

    country: str
    city: str
    location: str  # no two stations have the same
    latitude: float
    longitude: float
    ahead: int  # minutes, of UTC
    source: str
    kind: str
    url: str
    minute: int  # of the hour at which it measures
    sensors: tuple[Sensor, ...]  # 1 to 6


def make_stations(seed: int, number: int = STATIONS) -> list[Station]:
    """The first so many stations of this seed."""
    # Of Python's dice only random() gives the same numbers in every version.
    dice = random.Random(f"stations {seed}").random
    rows = [line.split("|") for line in _COUNTRIES.strip().splitlines()]
    lots = [row for row in rows for _ in range(int(row[1]))]
    return [_make_station(index, lots[int(dice() * len(lots))], dice) for index in range(number)]


def _make_station(index: int, row: list[str], dice: Callable[[], float]) -> Station:
    country, _, ahead, bad, source, kind, url, cities = row
    places = cities.split(", ")
    city, latitude, longitude = places[int(dice() * len(places))].rsplit(" ", 2)
    level = float(bad) * (0.5 + dice())
    # The sum of two dice: most stations are near the centre.
    north, east = (0.25 * (dice() + dice() - 1) for _ in range(2))
    return Station(
        country,
        city,
        f"{city} {_PLACES[int(dice() * len(_PLACES))]} {index:04}",
        round(float(latitude) + north, 6),
        round(float(longitude) + east, 6),
        int(ahead),
        source,
        kind,
        url,
        5 * int(dice() * 12),
        _make_sensors(country == "US", level, dice),
    )


def _make_sensors(in_ppm: bool, level: float, dice: Callable[[], float]) -> tuple[Sensor, ...]:
    chosen = [number for number, pollutant in enumerate(POLLUTANTS) if dice() < pollutant.share][:6]
    sensors = []
    for number in chosen or [0]:
        pollutant = POLLUTANTS[number]
        median = pollutant.median * level * (0.7 + 0.6 * dice())
        if in_ppm and pollutant.ppm:
            sensors.append(Sensor(number, "ppm", median * pollutant.ppm, 4))
        else:
            sensors.append(Sensor(number, pollutant.unit, median, pollutant.decimals))
    return tuple(sensors)

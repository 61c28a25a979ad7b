"""Seconds as people write them."""

from __future__ import annotations


def format_duration(seconds: float, figures: int = 3) -> str:
    """Write seconds to so many figures, ``"5 µs"``, ``"0.42 ms"``, ``"12.3 s"``, ``"4 min 05 s"``, ``"2 h 03 min"``."""
    if round(seconds) >= 60:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
    if seconds == 0 or round(seconds, figures) >= 1:
        value, unit = seconds, "s"
    elif round(seconds * 1000, figures + 1) >= 0.1:
        value, unit = seconds * 1000, "ms"
    else:
        value, unit = seconds * 1e6, "µs"
    before_point = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    text = f"{value:.{max(figures - before_point, 0)}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"

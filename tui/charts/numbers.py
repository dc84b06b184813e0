"""How numbers, amounts and times are written in little room."""

from __future__ import annotations

import math

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def short(value: float) -> str:
    """Three significant digits in at most ten characters; `NaN`, `+Inf`, `-Inf` are said as such."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 99_999.5 or magnitude < 0.000_999_5:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(magnitude)))}f}"


def exponent(text: str) -> str:
    """Write an exponent without the zeros nobody reads: `1.20e-05` becomes `1.2e-5`."""
    mantissa, _, power = text.partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}"


def amount(number: int) -> str:
    """A count in at most five characters: `999`, `61.7k`, `1.2M`."""
    if abs(number) < 1000:
        return str(number)
    scaled = float(number)
    for suffix in "kMGT":
        scaled /= 1000
        if abs(scaled) < 999.5 or suffix == "T":
            break
    return f"{scaled:.0f}{suffix}" if abs(scaled) >= 99.95 else f"{scaled:.1f}{suffix}"


def percent(fraction: float) -> str:
    """A share in at most four characters; a share that is not quite none or all does not read as `0%` or `100%`."""
    if math.isnan(fraction):
        return ""
    if 0 < fraction < 0.005:
        return "<1%"
    if 0.995 <= fraction < 1:
        return ">99%"
    return f"{fraction:.0%}"


def grouped(number: int) -> str:
    """A whole number with thin groups: `12 345`."""
    return f"{number:,}".replace(",", " ")


def ago(seconds: float) -> str:
    """How long ago, roughly: `just now`, `42 s ago`, `5 min ago`, `3 h ago`, `12 d ago`."""
    if seconds < 2:
        return "just now"
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """A stretch of time in its largest unit."""
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{max(0, int(seconds))} s"


def shortened(text: str, width: int) -> str:
    """A text cut to `width` characters in its middle, so that both its ends can be read."""
    if len(text) <= width:
        return text
    if width < 4:
        return text[: max(0, width)]
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"

"""How tables and sentences write rates, differences and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from experiments.report import Rate

FLOORS = {"nothing": "doing nothing", "random": "random actions", "expert": "recorded actions"}
"""What the floors of a report are called."""


def percent(share: float) -> str:
    """Write a share: "98 %"."""
    return f"{100 * share:.0f} %"


def percent_of(rate: Rate) -> str:
    """Write a rate with its interval: "98 % [93, 100]"."""
    return f"{percent(rate.mean)}{interval(rate)}"


def signed(difference: float) -> str:
    """Write a difference of shares in points with its sign: "+5"; a digit more where a whole number would hide it."""
    points = round(100 * difference, 2) + 0.0  # zero has no sign
    return f"{points:+.1g}" if points and not round(points) else f"{points:+.0f}"


def whole(share: float) -> str:
    """Write a share in percent, without the sign: "93"."""
    return f"{100 * share:.0f}"


def interval(rate: Rate, written: Callable[[float], str] = whole) -> str:
    """Write its interval: " [93, 100]"; nothing where it is not known."""
    return "" if rate.low is None or rate.high is None else f" [{written(rate.low)}, {written(rate.high)}]"


def cell(rate: Rate | None) -> str:
    """Write a rate in a table: mean, interval, and range over several seeds, in percent."""
    if rate is None:
        return ""
    each = f" ({100 * min(rate.each):.0f}..{100 * max(rate.each):.0f})" if len(rate.each) > 1 else ""
    return f"{100 * rate.mean:.0f}{interval(rate)}{each}"


def points(rate: Rate, is_clear: bool | None = None) -> str:
    """Write a difference of rates in percentage points, bold where it is clear; None: where it leaves out 0."""
    text = f"{signed(rate.mean)}{interval(rate, signed)}"
    return f"**{text}**" if (rate.sign != 0 if is_clear is None else is_clear) else text


def error(rate: Rate) -> str:
    """Write an error of a model: mean and interval, or the range over seeds where there is no interval."""
    if rate.low is not None and rate.high is not None:
        return f"{rate.mean:.4f} [{rate.low:.4f}, {rate.high:.4f}]"
    return f"{rate.mean:.4f}" + (f" ({min(rate.each):.4f}..{max(rate.each):.4f})" if len(rate.each) > 1 else "")


def number(value: float | None, digits: int = 0) -> str:
    """Write a number; nothing where it is not known."""
    return "" if value is None else f"{value:.{digits}f}"


def significant(value: float | None) -> str:
    """Write a number with three digits; nothing where it is not known."""
    return "" if value is None else f"{value:.3g}"


def listed(parts: Sequence[str]) -> str:
    """Join parts: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

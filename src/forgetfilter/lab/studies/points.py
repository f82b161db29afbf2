"""What curves are drawn through: the settings of `forgetfilter curves`, and their cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from forgetfilter.config import Settings, layered
from forgetfilter.errors import ConfigError
from forgetfilter.lab.studies.settings import (
    GridConfig,
    refuse_repeats,
    refuse_reserved,
    screen_config,
)
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.scoring.thresholds import choose_rule, fits
from forgetfilter.text import printable

COURSE = "course"
"""The cell that follows rows through learning and forgetting."""
SWEEPS = ("threshold", "forget_steps", "safe_rows", "unsafe_fraction", "model")
"""What can be varied, in the order of the page."""
OF_DATA = ("safe_rows", "unsafe_fraction")
"""The sweeps that vary a setting of the data set."""


class CourseSettings(Settings):
    """The steps of learning and forgetting at which the model is measured."""

    learning_steps: list[int] | None = Field(
        default=None,
        min_length=1,
        description="optimizer steps of the learn phase; null = the end of each epoch",
    )
    forgetting_steps: list[int] = Field(
        default=[1, 2, 5, 10, 20, 50, 100],
        min_length=1,
        description="optimizer steps t of the forgetting run, which is as long as the largest",
    )
    signals: list[str] = Field(
        default=["completion_loss:tempered", "restoration"],
        description="signals whose detection is measured at each t; those that need no forgetting "
        "run are measured once, for reference; rouge1 costs a generation a row and t",
    )


class SweepSettings(Settings):
    """Values of one setting at a time; all others stay as they are. Each value is a screen."""

    signals: list[str] = Field(
        default=["restoration"], min_length=1, description="a line each; screens of each value"
    )
    signal_settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict[str, dict[str, Any]],
        description="by signal: settings of its screens, where they differ from the others'",
    )
    threshold: list[str] = Field(
        default_factory=list[str],
        description="threshold rules, such as phi:0.1, each only for signals whose unit it fits; "
        "no new training",
    )
    forget_steps: list[int] = Field(
        default_factory=list[int],
        description="forget.max_steps; only for signals that need a forgetting run",
    )
    safe_rows: list[int] = Field(default_factory=list[int], description="of the data set")
    unsafe_fraction: list[float] = Field(
        default_factory=list[float], description="of the data set, 0 to 1"
    )
    model: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="models by the name that the curve gives them, smallest first",
    )


class CurvesConfig(GridConfig):
    """A course, sweeps, or both, on every seed of every data set."""

    course: CourseSettings | None = Field(
        default=None, description="learning and forgetting by kind of row; null = none"
    )
    sweeps: SweepSettings | None = Field(default=None, description="null = none")

    @property
    def points(self) -> list[Point]:
        """Every cell of one seed of one data set, in the order of the page."""
        found = [Point(COURSE)] if self.course is not None else []
        sweeps = self.sweeps or SweepSettings()
        for curve in SWEEPS:
            given: Any = getattr(sweeps, curve)
            for number, value in enumerate(given):
                found += [
                    _point(curve, number, value, signal, sweeps)
                    for signal in sweeps.signals
                    if _applies(curve, value, signal)
                ]
        return found

    @property
    def specs(self) -> list[str]:
        """The name of each point."""
        return [point.spec for point in self.points]

    def check(self) -> None:
        """Signals, thresholds and steps are such, and each is given once."""
        course, sweeps = self.course, self.sweeps or SweepSettings()
        if course is not None:
            steps = {
                "learning": course.learning_steps or [1],
                "forgetting": course.forgetting_steps,
            }
            for name, values in steps.items():
                _refuse_below(f"course.{name}_steps", values, 1)
                refuse_repeats(f"course.{name}_steps", values)
            _check_signals("course.signals", course.signals)
            if (self.settings.get("learn") or {}).get("max_rows") is not None:
                raise ConfigError(
                    "settings.learn.max_rows is given, and a course follows all rows as they are "
                    "learned. Expected a learn phase of all rows: leave it out, or draw sweeps "
                    "alone."
                )
        _check_signals("sweeps.signals", sweeps.signals)
        for signal, settings in sweeps.signal_settings.items():
            refuse_reserved(f"sweeps.signal_settings of {signal}", settings)
            if signal not in sweeps.signals:
                raise ConfigError(
                    f"sweeps.signal_settings has {printable(signal, 80)!r}; expected one of "
                    f"sweeps.signals: {', '.join(sweeps.signals)}. Mend the name."
                )
            if settings.get("threshold") is not None:
                choose_rule(signal, str(settings["threshold"]))
        for curve in SWEEPS:
            refuse_repeats(f"sweeps.{curve}", list(getattr(sweeps, curve)))
        for rule in sweeps.threshold:
            if not any(fits(rule, signal) for signal in sweeps.signals):
                choose_rule(sweeps.signals[0], rule)  # which says why
        _refuse_below("sweeps.forget_steps", sweeps.forget_steps, 1)
        if sweeps.forget_steps and not any(map(needs_forgetting, sweeps.signals)):
            raise ConfigError(
                "sweeps.forget_steps is given, but none of the signals "
                f"{', '.join(sweeps.signals)} needs a forgetting run. Expected one that does, such "
                "as completion_loss:tempered. Add it to sweeps.signals, or take the sweep out."
            )
        if not self.points:
            raise ConfigError(
                "There is nothing to draw: neither a course nor a value of a sweep is given. "
                "Expected at least one. Write a line like 'course: {}'."
            )
        for point in self.points:
            if point.curve != COURSE:
                settings = layered(self.settings, point.settings)
                screen = screen_config(self.model_copy(update={"settings": settings}), 0)
                choose_rule(screen.signal, screen.threshold)


@dataclass(frozen=True)
class Point:
    """One cell: the course, or one value of one sweep with one signal."""

    curve: str
    setting: str = ""
    """The value in words."""
    x: float | None = None
    """The value as a number, where it is one; else its place among the values, from 1."""
    signal: str = ""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """What of a screen's settings differs."""
    data: dict[str, float] = field(default_factory=dict[str, float])
    """What of the data set's settings differs."""
    model: str | None = None

    @property
    def spec(self) -> str:
        """Names the cell."""
        return f"{self.curve}={self.setting} {self.signal}" if self.setting else self.curve


def needs_forgetting(signal: str) -> bool:
    """Whether a signal compares with what is left after a forgetting run."""
    return any(probe.state == "forgotten" for probe in SIGNALS.build(signal).probes)


def _applies(curve: str, value: Any, signal: str) -> bool:
    """Whether a value of a sweep means something to a signal."""
    if curve == "forget_steps":
        return needs_forgetting(signal)
    return curve != "threshold" or fits(value, signal)


def _point(curve: str, number: int, value: Any, signal: str, sweeps: SweepSettings) -> Point:
    varied: dict[str, Any] = {"signal": signal}
    if curve == "threshold":
        varied["threshold"] = value
    if curve == "forget_steps":
        varied["forget"] = {"max_steps": value}
    settings = layered(sweeps.signal_settings.get(signal, {}), varied)
    is_number = isinstance(value, int | float)
    return Point(
        curve,
        f"{value:g}" if isinstance(value, float) else str(value),
        float(value) if is_number else float(number + 1),
        signal,
        settings,
        {curve: value} if curve in OF_DATA else {},
        sweeps.model[str(value)] if curve == "model" else None,
    )


def _check_signals(name: str, signals: list[str]) -> None:
    refuse_repeats(name, signals)
    for signal in signals:
        SIGNALS.build(signal)


def _refuse_below(name: str, values: list[int], least: int) -> None:
    wrong = [value for value in values if value < least]
    if wrong:
        raise ConfigError(
            f"{name} has {printable(str(wrong[0]), 40)}; expected steps from {least} on. Mend it."
        )

"""The Python interface: settings once, then screen as many files as wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forgetfilter.config import ScreenConfig, load_yaml, resolve
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.progress import Progress
from forgetfilter.review import review
from forgetfilter.runs.report.page import render_report
from forgetfilter.safe import safe_path
from forgetfilter.safe.check import check_safe
from forgetfilter.scoring.joint import JointWeight
from forgetfilter.scoring.thresholds import choose_rule
from forgetfilter.screening.annotations.described_harm import check_description
from forgetfilter.screening.annotations.second_opinion import check_second_opinion
from forgetfilter.screening.deciding.decide import apply_decisions, filter_run, finished_run
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.deciding.stage_gc import Freed, free_stages
from forgetfilter.screening.finetune import FinetuneResult, finetune
from forgetfilter.screening.inputs.opening import reading_of, with_data
from forgetfilter.screening.inputs.recorded import with_recording
from forgetfilter.screening.screen import ScreenResult
from forgetfilter.screening.screen import screen as _screen
from forgetfilter.text import printable

__all__ = ["ForgetFilter", "check_safe", "filter", "report", "screen"]


class ForgetFilter:
    """Screens fine-tuning files with one model and one set of safe rows.

    Args:
        model: folder or hub id of the causal language model that is to be fine-tuned. It may be
            left out where ``config`` names one.
        safe_data: file of rows whose answers are known to be safe; the packaged
            general-purpose set where not given. Rows that match your own risks are better.
        config: YAML file of settings, such as the ``config.yaml`` that every run writes; all other
            arguments win over it.
        preset: ``default`` or ``paper``.
        is_silent: whether to show no progress.
        settings: any other field of `ScreenConfig`; groups as mappings, for example
            ``learn={"num_train_epochs": 5}``.

    Raises:
        ConfigError: an unknown setting or a wrong value, all of them named at once; or a signal
            and a threshold rule that don't fit.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        safe_data: str | Path | None = None,
        *,
        config: str | Path | None = None,
        preset: str | None = None,
        is_silent: bool = False,
        **settings: Any,
    ) -> None:
        paths: dict[str, Any] = {"model": model, "safe_data": safe_data}
        for name, path in paths.items():
            if path is not None and (not isinstance(path, str | Path) or not str(path).strip()):
                raise ConfigError(
                    f"{name} is {printable(repr(path), 60)} of type {type(path).__name__}; "
                    "expected the path or name of one. Rows to screen are the first argument of "
                    "screen()."
                )
        given = {name: str(path) for name, path in paths.items() if path is not None}
        self._layers: list[dict[str, Any]] = [
            load_yaml(config) if config is not None else {},
            {**settings, **given, **({} if preset is None else {"preset": preset})},
        ]
        self._progress = Progress(is_silent=is_silent)
        # Wrong settings are found now, not after the model is loaded.
        resolved = resolve(ScreenConfig, *self._layers, {"noisy_data": "", "output_dir": ""})
        has_trusted = resolved.trusted_data is not None
        choose_rule(resolved.signal, resolved.threshold, has_trusted=has_trusted)
        check_second_opinion(resolved)
        check_description(resolved)
        reading_of(resolved.reading)
        with_recording(resolved)
        if not safe_path(resolved.safe_data).is_file():
            raise DataError(
                f"No file at safe_data {printable(resolved.safe_data, 300)!r}. Expected rows that "
                "are known to be safe. Check the path, or leave it out for the packaged set."
            )

    def screen(
        self,
        noisy_data: Any,
        output_dir: str | Path,
        *,
        overwrite: bool = False,
        **settings: Any,
    ) -> ScreenResult:
        """Screen rows into a run folder; see `screening.screen.screen` for the errors.

        Args:
            noisy_data: a file, a pattern, ``hub:owner/name``, a list of these, a
                `datasets.Dataset`, a DataFrame, or a list of dictionaries.
            output_dir: the run folder.
            overwrite: replace the outputs of a run on other rows or settings; finished stages stay.
            settings: fields of `ScreenConfig` for this screen alone, for example
                ``threshold="fraction:0.05"`` or ``coverage="off"``.
        """
        paths, data = with_data({"output_dir": str(output_dir)}, noisy_data)
        config = resolve(ScreenConfig, *self._layers, settings, paths)
        return _screen(config, self._progress, overwrite=overwrite, data=data)

    def finetune(
        self, run: str | Path, output_dir: str | Path, *, overwrite: bool = False
    ) -> FinetuneResult:
        """Fine-tune the base model on what a run kept; the adapter goes to ``output_dir``."""
        return finetune(run, output_dir, self._progress, overwrite=overwrite)

    @staticmethod
    def filter(
        run: str | Path,
        threshold: str | None = None,
        *,
        force: bool = False,
        overruling: Overruling | None = None,
        action: str | None = None,
        joint: JointWeight | None = None,
    ) -> ScreenResult:
        """Decide a finished run again, from its stored scores and what people decided of rows.

        Args:
            run: the run folder.
            threshold: the rule, for example ``"fraction:0.05"``; None: the present one.
            force: decide although a severe finding says that the scores can't be trusted.
            overruling: rows to keep or remove whatever the rule says, with reason and reviewer, and
                what to do with edits by hand: ``Overruling(keep=(97,), reason="sarcasm")``.
            action: ``remove``, ``flag``, ``weight`` or ``mask``; None: as before.
            joint: how many nats per root token a second opinion of 1 adds to what is cut, where
                the run has one; 0: nothing; ``"reviewed"``: as many as tell best which rows people
                kept and removed; None: as before.

        Raises:
            ConfigError: an unknown rule, or one that doesn't fit the run's signal; a joint rule
                that can't be.
            DataError: not a finished run, an unknown row, or a file that was edited by hand.
            RunExistsError: the run is in use.
            UnfitError: a severe finding, and no ``force``; the run stays as it is.
        """
        summary = filter_run(
            run, threshold, force=force, overruling=overruling, action=action, joint=joint
        )
        return ScreenResult(Path(run), summary, was_finished=False, was_decided_again=True)

    @staticmethod
    def report(run: str | Path) -> Path:
        """Write a finished run's ``report.html`` again, and return its path.

        What people have decided of rows since is applied first.

        Raises:
            DataError: not a finished run, or a file was edited by hand.
            RunExistsError: the run is in use.
        """
        with finished_run(run) as folder:
            apply_decisions(folder.path)
            return render_report(folder.path)

    @staticmethod
    def review(
        run: str | Path, *, reviewer: str = "", port: int = 0, opens_browser: bool = True
    ) -> ScreenResult:
        """Serve a page on this machine to overrule the filter row by row, until Ctrl-C.

        See `review.review` for the errors; it needs the extra ``forgetfilter[review]``.

        Args:
            run: the run folder.
            reviewer: who decides; empty: the login name.
            port: where to listen on 127.0.0.1; 0: a free one.
            opens_browser: whether to open the page.
        """
        summary = review(run, reviewer=reviewer, port=port, opens_browser=opens_browser)
        return ScreenResult(Path(run), summary, was_finished=False, was_decided_again=True)

    @staticmethod
    def gc(run: str | Path, *, is_dry_run: bool = False) -> Freed:
        """Free the stages that a finished run's decision doesn't use; see `free_stages`."""
        return free_stages(run, is_dry_run=is_dry_run)


def screen(
    noisy_data: Any,
    output_dir: str | Path,
    model: str | Path | None = None,
    safe_data: str | Path | None = None,
    *,
    overwrite: bool = False,
    is_silent: bool = False,
    **settings: Any,
) -> ScreenResult:
    """Screen rows once: `ForgetFilter` and its `screen` in one call."""
    screener = ForgetFilter(model, safe_data, is_silent=is_silent, **settings)
    return screener.screen(noisy_data, output_dir, overwrite=overwrite)


def filter(
    run: str | Path,
    threshold: str | None = None,
    *,
    force: bool = False,
    overruling: Overruling | None = None,
    action: str | None = None,
    joint: JointWeight | None = None,
) -> ScreenResult:
    """Decide a finished run again; see `ForgetFilter.filter`."""
    return ForgetFilter.filter(
        run, threshold, force=force, overruling=overruling, action=action, joint=joint
    )


def report(run: str | Path) -> Path:
    """Write a finished run's ``report.html`` again; see `ForgetFilter.report`."""
    return ForgetFilter.report(run)

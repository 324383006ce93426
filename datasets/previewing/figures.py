"""Histograms of a preview, one PNG each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.previewing.columns import BINS, Column
from utils.files import write_file

DATA, UNITS = "#0b6bb0", "#c8500a"


def draw_column(column: Column, path: Path) -> None:
    """Draw the distribution of a column, its mean and deviation, and those of the normaliser below it."""
    figure, axes = _axes(column.name)
    if column.mean is not None and column.std is not None:
        width = np.diff(column.edges)
        axes.bar(column.edges[:-1], column.counts, width, align="edge", color=DATA, alpha=0.35, linewidth=0)
        top = max(column.counts)
        _interval(axes, -0.08 * top, column.mean, column.std, DATA, "data, mean and deviation")
        if (column.expected_mean, column.expected_std) != (0, 1):
            _interval(axes, -0.2 * top, column.expected_mean, column.expected_std, UNITS, "normaliser")
        axes.set_ylim(-0.3 * top, 1.45 * top)
        axes.set_yticks([])
        axes.legend(loc="upper center", ncols=2, fontsize=7, frameon=False, handlelength=1.2)
    _save(figure, path)


def draw_lengths(lengths: Sequence[int], window: int, path: Path) -> None:
    """Draw how long episodes are, and how long one must be for a training to see it."""
    figure, axes = _axes("steps of an episode")
    axes.hist(lengths, bins=min(BINS, max(1, len(set(lengths)))), color=DATA, alpha=0.5)
    axes.axvline(window, color=UNITS, linewidth=1.5, label=f"one training sample, {window} steps")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.legend(loc="upper center", fontsize=7, frameon=False)
    _save(figure, path)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.6, 2.1))
    axes = figure.add_axes((0.07, 0.13, 0.9, 0.75))  # a layout that looks for room takes three times as long
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _interval(axes: Axes, height: float, mean: float, std: float, colour: str, label: str) -> None:
    """Draw mean and deviation as a dot on a bar."""
    axes.errorbar(mean, height, xerr=std, color=colour, marker="o", markersize=3.5, capsize=2.5, label=label)


def _save(figure: Figure, path: Path) -> None:
    write_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))

"""Data sets of a comparison, one file each. Add yours: one file, and one line here."""

from forgetfilter.lab.studies.datasets.base import Data, DataSet, Judged, Rewrite
from forgetfilter.lab.studies.datasets.files import FileRows
from forgetfilter.lab.studies.datasets.labelled import LabelledRows
from forgetfilter.lab.studies.datasets.world import WorldRows

DATASETS: dict[str, type[DataSet]] = {
    "testbed": WorldRows,
    "files": FileRows,
    "labelled": LabelledRows,
}
"""Kinds of data set, by the name that a settings file gives them."""

__all__ = [
    "DATASETS",
    "Data",
    "DataSet",
    "FileRows",
    "Judged",
    "LabelledRows",
    "Rewrite",
    "WorldRows",
]

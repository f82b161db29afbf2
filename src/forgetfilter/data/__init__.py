"""Data in and out: any of the row formats in, the original bytes out."""

from forgetfilter.data.reading import read_rows
from forgetfilter.data.writing import to_dataset, write_lines, write_records, write_rejected

__all__ = ["read_rows", "to_dataset", "write_lines", "write_records", "write_rejected"]

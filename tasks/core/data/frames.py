"""Tables as they lie in files: CSV, plain or gzipped, and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.arrays import FloatArray, Mask
from tasks.core.errors import CertiflowError
from tasks.core.files import GZIP_MAGIC

PARQUET_MAGIC = b"PAR1"
SEPARATORS = (",", ";", "\t")
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "?")
TRUTH = {"true": "1", "True": "1", "TRUE": "1", "false": "0", "False": "0", "FALSE": "0"}
POINT = r"^([+-]?\d+)\.0*$"  # of a whole number
UNREADABLE = (  # what pandas and pyarrow raise on files that are no tables
    OSError,
    EOFError,
    ValueError,
    LookupError,
    NotImplementedError,
    zlib.error,
    csv.Error,
    pd.errors.ParserWarning,
)


def read_frame(
    path: Path, columns: Sequence[str] = (), content: bytes | None = None
) -> pd.DataFrame:
    """The table in a file, or in its `content`; a CSV file's cells as text, as they are written.

    Cells are separated by the one of comma, semicolon and tab that its first line has most of;
    `columns` names the columns of a CSV file that has no line of names.

    Raises:
        CertiflowError: no such file, no rows, a column twice, cells that do not fit the columns.
    """
    if content is None:
        content = _content(path)
    try:
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        if content.startswith(PARQUET_MAGIC):
            frame, names = _read_parquet(content)
        else:
            frame, names = _read_csv(content.decode("utf-8-sig"), list(columns))
    except UnicodeDecodeError as error:
        raise CertiflowError(f"{path}: is not text in UTF-8 ({error}): convert it") from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise CertiflowError(f"{path}: cannot be read as CSV or Parquet ({reason})") from error
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CertiflowError(f"{path}: column '{twice[0]}' stands twice: rename or remove one")
    if frame.empty:
        raise CertiflowError(f"{path}: has no rows: expected a line of names and one for each row")
    return frame.reset_index(drop=True)


def numbers(column: pd.Series, *, truth: bool = False) -> tuple[FloatArray, Mask]:
    """A column's numbers, nan where cells are empty, and which cells are neither.

    With `truth`, true and false are numbers too: 1 and 0.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), dtype=bool)
    empty = (column.isna() | column.isin(MISSING)).to_numpy(dtype=bool)
    texts = column.astype(str)
    if truth:
        texts = texts.replace(TRUTH)
    texts = texts.to_numpy(dtype=object)
    texts[empty] = "nan"
    try:
        return texts.astype(np.float64), np.zeros(len(column), dtype=bool)
    except ValueError:
        found = np.array([_number(text) for text in texts])
        return found, np.isnan(found) & ~empty


def words(column: pd.Series, known: Sequence[str] = ()) -> pd.Series:
    """A column's cells as text, None where they are empty; whole numbers without a point.

    What is a `known` word stays as it is written, also with a point, or as NA is, which usually
    means an empty cell.
    """
    if pd.api.types.is_bool_dtype(column):
        texts = column.map({True: "True", False: "False"})
    elif pd.api.types.is_numeric_dtype(column):
        texts = column.map(lambda value: f"{value:.17g}", na_action="ignore")
    else:
        texts = column.astype(str)
        texts = texts.mask(~texts.isin(known), texts.str.replace(POINT, r"\1", regex=True))
    empty = column.isna() | texts.isin([word for word in MISSING if word not in known])
    return texts.astype(object).mask(empty, None)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertiflowError(
            f"{path}: {error.strerror or error}: name a CSV or Parquet file"
        ) from error


def _read_parquet(content: bytes) -> tuple[pd.DataFrame, list[str]]:
    """The table, with names of text, and no column of a dictionary's places."""
    plainly = {"ignore_metadata": True}  # what pandas wrote beside the columns may be damaged
    frame = pd.read_parquet(io.BytesIO(content), to_pandas_kwargs=plainly)
    names = [str(name) for name in frame.columns]
    frame.columns = pd.Index(names)
    kinds = {
        name: kind.categories.dtype
        for name, kind in frame.dtypes.items()
        if isinstance(kind, pd.CategoricalDtype)
    }
    return frame.astype(kinds), names


def _read_csv(text: str, columns: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table, and the names as they are written: pandas renames those that stand twice."""
    line = text.partition("\n")[0]
    separator = max(SEPARATORS, key=line.count)
    first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    names = columns or first
    if not first:
        raise ValueError("it is empty")
    if len(first) != len(names):
        raise ValueError(f"its first line has {len(first)} cells for {len(names)} columns")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # cells would be dropped
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None if columns else 0,
            names=columns or None,
            index_col=False,
            dtype=str,
            na_filter=False,
        )
    return frame, names


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")

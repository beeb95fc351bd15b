"""The case table: one row per subject x modality x structure x stage x prompt x clicks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umdseg.errors import UserError, unknown
from umdseg.files import atomic
from umdseg.vocabulary import STATUSES

if TYPE_CHECKING:
    import pandas as pd

_INTEGERS = ("fold", "seed", "shots", "clicks")
_FLOATS = (
    *("dice", "nsd", "hd95", "assd", "auc", "volume_ref_ml", "volume_pred_ml"),
    *("fn_ml", "fp_ml", "seconds", "peak_gb"),
)
COLUMNS: tuple[str, ...] = (
    *("dataset", "subject", "patient", "site", "tracer", "split", "fold", "seed", "shots", "pair"),
    *("modality", "subset", "structure", "stage", "model", "adapter", "fusion", "prompt", "clicks"),
    *("condition", "score_grid", "dice", "nsd", "hd95", "assd", "auc", "volume_ref_ml", "volume_pred_ml"),
    *("fn_ml", "fp_ml", "seconds", "peak_gb", "status"),
)
DTYPES: dict[str, str] = {
    c: "Int64" if c in _INTEGERS else "float64" if c in _FLOATS else "str" for c in COLUMNS
}
# on the label's own grid, or on the subject's reference grid within the common field of view
SCORE_GRIDS: tuple[str, ...] = ("label", "common")
# condition of the rows of a scan that has no label at all; their status is empty_reference
NO_LABEL = "no_label"
# what says which measurement a row is; everything else is its result
KEY: tuple[str, ...] = (
    *("dataset", "subject", "split", "fold", "seed", "shots", "modality", "subset", "structure", "stage"),
    *("model", "adapter", "fusion", "prompt", "clicks", "condition", "score_grid"),
)


def case_table(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Make a table with exactly COLUMNS and DTYPES; absent texts are "", absent numbers null.

    A row that names no patient (a table older than the column, say) is of the subject itself.

    Raises:
        UserError: a row has a column or a status that the table does not know.
    """
    import pandas as pd

    frame = pd.DataFrame(rows if isinstance(rows, pd.DataFrame) else [dict(row) for row in rows])
    for column in frame.columns:
        if column not in COLUMNS:
            raise unknown("column of the case table", str(column), COLUMNS)
    frame = frame.reindex(columns=list(COLUMNS))
    for column, dtype in DTYPES.items():
        values: Any = frame[column]
        if dtype == "str":
            frame[column] = values.astype(object).where(values.notna(), "").astype(str)
        else:
            frame[column] = values.astype(dtype)
    frame["patient"] = frame["patient"].where(frame["patient"] != "", frame["subject"])
    for status in frame["status"].unique():
        if status not in STATUSES:
            raise unknown("status", str(status), STATUSES)
    return frame


def on_grid(cases: pd.DataFrame, grid: str = "label") -> pd.DataFrame:
    """The rows of one score grid; rows that name none (a table made by hand) are on the label's."""
    if "score_grid" not in cases:
        return cases if grid == "label" else cases.iloc[:0]
    named = cases["score_grid"].fillna("").replace("", "label")
    return cases[named == grid]


def merge(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tables; of rows with the same KEY the last one stays. The order of rows is kept."""
    import pandas as pd

    frames = [case_table(table) for table in tables if len(table)]
    if not frames:
        return case_table([])
    joined = pd.concat(frames, ignore_index=True).drop_duplicates(list(KEY), keep="last")
    return case_table(joined.reset_index(drop=True))


def write_cases(cases: pd.DataFrame, folder: Path) -> Path:
    """Write cases.parquet and cases.csv atomically and return the parquet path."""
    table = case_table(cases)
    with atomic(folder / "cases.csv") as temporary:
        table.to_csv(temporary, index=False)
    return _write_parquet(table, folder / "cases.parquet")


def read_cases(path: Path) -> pd.DataFrame:
    """Read a case table from a run folder, a parquet or a csv file.

    Raises:
        UserError: there is no such file.
    """
    import pandas as pd

    path = Path(path)
    path = path / "cases.parquet" if path.is_dir() else path
    if not path.exists():
        raise UserError(
            "there is no case table", where=path, expected="cases.parquet or cases.csv of a run folder"
        )
    if path.suffix == ".csv":
        # texts stay texts: a subject called 001 is not the number 1
        texts = {c: "str" for c, dtype in DTYPES.items() if dtype == "str"}
        absent = {c: [""] for c in (*_INTEGERS, *_FLOATS)}
        return case_table(pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=absent))
    return case_table(pd.read_parquet(path))


def write_part(cases: pd.DataFrame, folder: Path, stage: str, rank: int) -> Path:
    """Write one rank's share of a stage; `merge_parts` joins them."""
    return _write_parquet(case_table(cases), folder / "parts" / f"{stage}-{rank:04d}.parquet")


def merge_parts(folder: Path, stage: str, world: int) -> pd.DataFrame:
    """Join the parts of a stage in rank order and remove them.

    Raises:
        UserError: a rank's part is missing, so the table would be silently incomplete.
    """
    paths = [folder / "parts" / f"{stage}-{rank:04d}.parquet" for rank in range(world)]
    for path in paths:
        if not path.exists():
            raise UserError("a process did not deliver its part of the case table", where=path)
    table = merge([read_cases(path) for path in paths])
    for path in paths:
        path.unlink()
    if not any((folder / "parts").iterdir()):
        (folder / "parts").rmdir()
    return table


def _write_parquet(table: pd.DataFrame, path: Path) -> Path:
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)
    return path

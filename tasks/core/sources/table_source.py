"""Tables by name: those whose schema comes with certiflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from tasks.core.data.datasets import Dataset, Extent
from tasks.core.data.pinned_files import PinnedText, RemoteFile
from tasks.core.data.schema import Schema, read_schema
from tasks.core.properties.perturbation import Scale

if TYPE_CHECKING:
    import pandas as pd

SCHEMAS = Path(__file__).parent / "schemas"


class PublishedFile(BaseModel):
    """A source of the schema: its content, its path on a mirror and its public addresses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    mirror: str
    addresses: tuple[str, ...]

    @property
    def content(self) -> PinnedText:
        return PinnedText(self.name, self.size, self.sha256)


class PublishedSchema(Schema):
    """A schema whose sources are public; none of them where the data come with scikit-learn."""

    files: tuple[PublishedFile, ...] = ()
    test_rows: int = Field(ge=1)


@dataclass(frozen=True)
class TableSource:
    """A table by the name of its schema; `bundled` gives the frame where there are no files."""

    schema_name: str
    bundled: Callable[[], pd.DataFrame] | None = None
    is_table = True

    @cached_property
    def schema(self) -> PublishedSchema:
        return read_schema(self._schema_path, PublishedSchema)

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        return tuple(
            RemoteFile(file.content, file.mirror, file.addresses) for file in self.schema.files
        )

    @property
    def extent(self) -> Extent:
        """What it holds, known without its files."""
        schema = self.schema
        return Extent(
            schema.domain.shape, len(schema.classes), schema.test_rows, schema.positive_label
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.schema.class_names

    def read(self, name: str, folder: Path, scale: Scale, most_changes: int) -> Dataset:
        """From the files in `folder`, checked; raises `CertiflowError` when they are others."""
        from tasks.core.data.tables import dataset_of, read_frames  # pandas takes long to import

        schema = self.schema
        if self.bundled is not None:
            frames = {schema.source: self.bundled()}
        else:
            contents = {file.name: file.content.read(folder / file.name) for file in schema.files}
            frames = read_frames(schema, folder, contents)
        return dataset_of(schema, self._schema_path, frames, scale, most_changes)

    @property
    def _schema_path(self) -> Path:
        return SCHEMAS / f"{self.schema_name}.yaml"

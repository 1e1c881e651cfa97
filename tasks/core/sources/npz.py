"""Arrays in `.npz` files: read without pickles, and never more than the file can hold."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tasks.core.errors import CertiflowError, first_line

SUFFIX = ".npz"
MOST_PACKED = 1100  # deflate makes at most about 1,032 bytes of one

Array = NDArray[np.generic]


def read_arrays(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Array]:
    """The arrays of these names, and those of the optional ones that are there.

    Raises:
        CertiflowError: no such file, no `.npz`, a name is missing; an array holds Python objects,
            is not whole, or does not fit into memory.
    """
    if not path.is_file():
        raise CertiflowError(f"{path}: no such file; expected arrays {', '.join(names)} in it")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in names if name not in members]
            if missing:
                raise CertiflowError(
                    f"{path}: lacks {', '.join(missing)}; it has {sorted(members)}"
                )
            wanted = [*names, *(name for name in optional if name in members)]
            return {name: _array(archive, members[name], name) for name in wanted}
    except zipfile.BadZipFile as error:
        hint = f"{error}; save it with np.savez" if _is_npy(path) else str(error)
        raise CertiflowError(f"{path}: cannot be read as .npz without pickles ({hint})") from error
    except MemoryError as error:
        raise CertiflowError(f"{path}: does not fit into memory: use fewer inputs") from error
    except CertiflowError:
        raise
    except Exception as error:  # NumPy's reader of headers lets out any kind
        reason = first_line(error)
        raise CertiflowError(
            f"{path}: cannot be read as .npz without pickles ({reason})"
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Array:
    """The array of a member, whose header is believed only as far as the member's size goes."""
    if member.file_size > MOST_PACKED * max(member.compress_size, 1):
        raise ValueError(
            f"{name} claims {member.file_size} bytes, more than {member.compress_size} packed ones "
            "can hold"
        )
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        claimed, left = prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    if claimed != left:
        raise ValueError(f"{name} of shape {shape} needs {claimed} bytes, the file holds {left}")
    with archive.open(member) as stream:
        found: Array = npy.read_array(stream, allow_pickle=False)
    return found


def _is_npy(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX

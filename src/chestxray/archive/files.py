"""What an archive holds: every file of a folder, a zip, a tar, a list or a glob, found and read.

A zip or a tar is opened wherever it is met, but not within another. Nothing is unpacked to disk.
Folders are walked in the order the disk gives and nothing is sorted, so that memory does not grow
with their size; what a link leads to is walked once. Held in memory are the numbers of the folders
that were walked, a zip's table of contents while its files are read, and of a glob the names in one
folder. In a tar a hard link is not listed: the file that it stands for has its row. What operating
systems leave behind (``.DS_Store``, ``Thumbs.db``) is counted, and no file of the archive.

Does not: decide by its name whether a file is a radiograph (``imaging`` reads the bytes).
"""

from __future__ import annotations

import glob
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path
from typing import IO, Literal, Self

from chestxray.archive.lists import LONGEST_NAME, is_list, paths_in
from chestxray.dataset.litter import is_litter
from chestxray.errors import (
    CannotOpenError,
    ConfigError,
    DamagedFileError,
    UnsupportedFormatError,
)

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LONGEST_TAR_HEADER_BYTES = 1024 * 1024
# Members of a tar that say something of the next one; tarfile reads them whole.
_TAR_HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)

# What zipfile, tarfile and the decompressors under them raise for files that are damaged or made to
# do harm: numbers beyond 64 bit, tables that end early, headers of headers without end.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, LZMAError, zlib.error, struct.error),
    *(EOFError, ValueError, OverflowError, IndexError, RecursionError),
)

Kind = Literal["file", "zip", "tar", "damaged"]


@dataclass(frozen=True, slots=True)
class Item:
    """One file of an archive.

    ``path`` is where it lies, with a zip's or tar's own path before the name in it. ``container``
    and ``member`` find it again: the file on disk, and its number among the members of a zip or
    tar. ``damaged`` stands for a container that cannot be read (on).
    """

    path: str
    container: str
    kind: Kind = "file"
    member: int = 0


@dataclass(slots=True)
class Walk:
    """The way through folders that were named: each is entered once, and ``out`` never listed.

    ``entered`` holds the (device, inode) of folders that are behind us, or shall not be entered.
    ``n_litter`` counts the files that operating systems left behind.
    """

    out: Path
    entered: set[tuple[int, int]] = field(default_factory=set)
    n_litter: int = 0

    def lists(self, name: str) -> bool:
        """Whether a file of that name is listed: it is counted as litter otherwise."""
        litter = is_litter(name)
        self.n_litter += litter
        return not litter


def find(source: str, walk: Walk) -> Iterator[Item]:
    """Every file that ``source`` stands for: a folder, a zip or tar, an image, a list of paths
    (relative to the list or to the current directory), or a glob (``**`` for any depth).

    Raises:
        ConfigError: there is nothing of that name.
    """
    if os.path.isfile(source):  # noqa: PTH113 - names are strings all the way into the rows
        yield from _in_named_file(source, walk)
    elif os.path.isdir(source):  # noqa: PTH112
        yield from _at(source, walk)
    elif glob.has_magic(source):
        for path in glob.iglob(source, recursive=True):  # noqa: PTH207 - a path may be absolute
            # With ** what is in a folder matches by itself.
            if "**" in source and os.path.isdir(path):  # noqa: PTH112
                continue
            if is_litter(source) or walk.lists(path):
                yield from _at(path, walk)
    else:
        raise ConfigError(f"there is no {source}")


def _in_named_file(source: str, walk: Walk) -> Iterator[Item]:
    if _archive_kind(source) or not is_list(source):
        yield from _at(source, walk)
        return
    beside = os.path.dirname(source)  # noqa: PTH120
    for path in paths_in(source):
        if walk.lists(path):
            yield from _at(_meant(path, beside), walk)


def _meant(path: str, beside: str) -> str:
    """A path of a list, from where it leads somewhere: the list's folder, or the current one.

    Windows writes it with backslashes, which elsewhere may be part of a name.
    """
    for written in (path, path.replace("\\", "/")):
        for start in (beside, ""):
            found = os.path.join(start, written)  # noqa: PTH118
            if os.path.lexists(found):
                return found
    return path


def _at(path: str, walk: Walk) -> Iterator[Item]:
    kind = _archive_kind(path)
    if os.path.isdir(path):  # noqa: PTH112
        yield from _in_folder(path, walk)
    elif kind and not os.path.isfile(path):  # noqa: PTH113 - to open a pipe is to wait for ever
        yield Item(path, path)
    elif kind == "zip":
        yield from _in_zip(path, walk)
    elif kind == "tar":
        yield from _in_tar(path, walk)
    elif not _is_out(path, walk):
        yield Item(path, path)


def _archive_kind(path: str) -> Literal["zip", "tar"] | None:
    name = path.lower()
    if name.endswith(ZIP_SUFFIXES):
        return "zip"
    return "tar" if name.endswith(TAR_SUFFIXES) else None


def _is_out(path: str, walk: Walk) -> bool:
    """Whether it is ``walk.out``, or lies in the ``.parts`` beside it (where only globs come)."""
    if walk.out.name not in path:
        return False
    return _same(path, f"{walk.out}") or _same(os.path.dirname(path), f"{walk.out}.parts")  # noqa: PTH120


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)  # noqa: PTH121
    except OSError:
        return False


def _in_folder(path: str, walk: Walk) -> Iterator[Item]:
    try:
        facts = os.stat(path)  # noqa: PTH116
        if (facts.st_dev, facts.st_ino) in walk.entered:
            return
        walk.entered.add((facts.st_dev, facts.st_ino))
        entries = os.scandir(path)
    except OSError:
        yield Item(path, path)  # reading it says why, in its row
        return
    with entries:
        for entry in entries:
            # Pipes and devices are no files; a link that leads nowhere is one that is missing. The
            # link is asked first, since one that leads to itself cannot be followed.
            if not (entry.is_symlink() or entry.is_dir() or entry.is_file()):
                continue
            if not is_litter(entry.name):
                yield from _at(entry.path, walk)
            elif entry.is_dir(follow_symlinks=False):
                walk.n_litter += sum(len(names) for _, _, names in os.walk(entry.path))
            else:
                walk.n_litter += 1


def _in_zip(path: str, walk: Walk) -> Iterator[Item]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except OSError:
        yield Item(path, path)
    except (*_DAMAGE, NotImplementedError):
        yield Item(path, path, "damaged")
    else:
        for number, member in enumerate(members):
            if member.filename.endswith("/"):  # is_dir fails for a name that is empty
                continue
            if walk.lists(member.filename):
                yield Item(f"{path}/{member.filename}", path, "zip", number)


def _in_tar(path: str, walk: Walk) -> Iterator[Item]:
    try:
        with tarfile.open(path, tarinfo=_Header) as archive:
            for number, member in enumerate(_members(archive)):
                # A link's file has a row of its own.
                if member.isreg() and walk.lists(member.name):
                    yield Item(f"{path}/{member.name}", path, "tar", number)
    except _DAMAGE:
        yield Item(path, path, "damaged")
    except OSError as exc:  # so are BadGzipFile and damage to a bz2, without a number
        yield Item(path, path, "file" if exc.errno else "damaged")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    behind = -1
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # it would keep them all
        if archive.offset <= behind or len(member.name) > LONGEST_NAME:
            raise tarfile.ReadError("a size below zero, or a name that nothing can have")
        behind = archive.offset
        yield member


class _Header(tarfile.TarInfo):
    """A header that is not one is an error wherever it stands, not only at the front."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as exc:
            if any(buf):
                raise tarfile.ReadError("the tar breaks off or goes on as something else") from exc
            raise  # the zeros at the end
        longest = _LONGEST_TAR_HEADER_BYTES if header.type in _TAR_HEADERS else header.size
        if not 0 <= header.size <= longest:
            raise tarfile.ReadError("a size below zero, or a header without an end")
        return header


class Reader:
    """Reads items; keeps the zip or tar that it read from last open.

    A tar is gone through forwards, so its items should be asked for in their order.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._open_path: str | None = None
        self._zip: zipfile.ZipFile | None = None
        self._tar: _TarCursor | None = None

    def loader(self, item: Item) -> Callable[[], bytes]:
        """What gives the item's bytes, at most one more than ``max_bytes``, in any thread.

        A tar's item is read now, and only handed over by the loader. Raises nothing; the loader
        raises CannotOpenError or UnreadableError.
        """
        if item.kind == "file":
            return lambda: self._from_file(item.container)
        try:
            if item.kind == "zip":
                archive = self._zip_of(item.container)
                return lambda: self._from_zip(archive, item)
            if item.kind == "tar":
                data = self._from_tar(item)
                return lambda: data
        except (CannotOpenError, DamagedFileError) as exc:
            error = exc
            return lambda: _raise(error)
        return lambda: _raise(DamagedFileError("the zip or tar cannot be read"))

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
        # A zip closes when the last loader that holds it is gone.
        self._open_path = self._zip = self._tar = None

    def _from_file(self, path: str) -> bytes:
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                facts = os.fstat(file.fileno())
                if not stat.S_ISREG(facts.st_mode):
                    raise CannotOpenError("it is no file")
                return file.read(min(facts.st_size, self._max_bytes) + 1)
        except (OSError, ValueError) as exc:  # ValueError: a name with a zero byte
            raise CannotOpenError("the file is missing or may not be read") from exc

    def _zip_of(self, path: str) -> zipfile.ZipFile:
        if self._zip is None or self._open_path != path:
            self.close()
            try:
                self._zip, self._open_path = zipfile.ZipFile(path), path
            except OSError as exc:
                raise CannotOpenError("the zip is missing or may not be read") from exc
            except (*_DAMAGE, NotImplementedError) as exc:
                raise DamagedFileError("the zip cannot be read") from exc
        return self._zip

    def _from_zip(self, archive: zipfile.ZipFile, item: Item) -> bytes:
        try:
            member = archive.infolist()[item.member]
            if f"{item.container}/{member.filename}" != item.path:
                raise DamagedFileError("the zip has changed")
            # zipfile unpacks bz2 and LZMA without a bound, however little is asked for.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnsupportedFormatError("the file is packed in a rare way")
            with archive.open(member) as file:
                return self._bounded(file)
        except _DAMAGE as exc:
            raise DamagedFileError("the file is damaged within the zip") from exc
        except RuntimeError as exc:
            raise UnsupportedFormatError("the file is encrypted or packed in a rare way") from exc
        except OSError as exc:
            raise CannotOpenError("the zip may not be read") from exc

    def _from_tar(self, item: Item) -> bytes:
        path = item.container
        try:
            if self._tar is None or self._open_path != path or self._tar.passed > item.member:
                self.close()
                self._tar, self._open_path = _TarCursor(path), path
            return self._bounded(self._tar.file(item))
        except _DAMAGE as exc:
            raise DamagedFileError("the tar is damaged") from exc
        except OSError as exc:
            if exc.errno is None:
                raise DamagedFileError("the tar is damaged") from exc
            raise CannotOpenError("the tar is missing or may not be read") from exc

    def _bounded(self, file: IO[bytes]) -> bytes:
        with file:
            return file.read(self._max_bytes + 1)


class _TarCursor:
    """A tar, gone through forwards; ``passed`` members lie behind."""

    def __init__(self, path: str) -> None:
        self._tar = tarfile.open(path, tarinfo=_Header)  # noqa: SIM115 - closed by `close`
        self._members = _members(self._tar)
        self.passed = 0

    def file(self, item: Item) -> IO[bytes]:
        for info in self._members:
            self.passed += 1
            if self.passed > item.member:
                if info.isreg() and f"{item.container}/{info.name}" == item.path:
                    file = self._tar.extractfile(info)
                    if file is not None:
                        return file
                break
        raise tarfile.ReadError("the tar has changed")

    def close(self) -> None:
        self._tar.close()


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for who writes into it, should it be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _raise(error: Exception) -> bytes:
    raise error

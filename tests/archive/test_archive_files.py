"""What is found in an archive and how it is read, whole or damaged."""

import io
import os
import resource
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from chestxray.archive.files import Item, Reader, Walk, find
from chestxray.errors import (
    CannotOpenError,
    ChestXrayError,
    ConfigError,
    DamagedFileError,
    UnreadableError,
    UnsupportedFormatError,
)
from factories import mutations

FILES = {"a.png": b"first", "in/b.jpeg": b"second" * 3000, "in/deep er/c": b"", "in/d.dcm": b"last"}
TARS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
TWO_MIB = 2 * 1024 * 1024


def in_folder(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def in_zip(file: Path, files: dict[str, bytes] = FILES, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.mkdir("in")
        for name, data in files.items():
            archive.writestr(name, data)
    return file


def in_tar(file: Path, files: dict[str, bytes] = FILES, mode: str | None = None) -> Path:
    ending = next(ending for ending in TARS if file.name.endswith(ending))
    with tarfile.open(file, mode or TARS[ending]) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("in")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def items(source: object, tmp_path: Path) -> list[Item]:
    return list(find(str(source), Walk(tmp_path / "out.csv")))


def content(found: Iterable[Item], max_bytes: int = TWO_MIB) -> dict[str, bytes | str]:
    """What each path holds, or the code of the error that reading it raises."""
    reader = Reader(max_bytes)
    read: dict[str, bytes | str] = {}
    for item in found:
        assert item.path not in read
        load = reader.loader(item)
        try:
            read[item.path] = load()
        except (CannotOpenError, UnreadableError) as exc:
            read[item.path] = exc.code
    reader.close()
    return read


def read_all(source: object, tmp_path: Path) -> dict[str, bytes | str]:
    return content(items(source, tmp_path))


def beneath(place: object, files: dict[str, bytes] = FILES) -> dict[str, bytes | str]:
    return {f"{place}/{name}": data for name, data in files.items()}


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda at: in_folder(at / "folder"),
    "stored.zip": lambda at: in_zip(at / "stored.zip", how=zipfile.ZIP_STORED),
    "packed.ZIP": lambda at: in_zip(at / "packed.ZIP"),
} | {f"x{ending}": lambda at, ending=ending: in_tar(at / f"x{ending}") for ending in TARS}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_every_file_is_found_once_and_read_as_it_is(make, relative, tmp_path, monkeypatch) -> None:
    source = make(tmp_path)
    if relative:
        monkeypatch.chdir(tmp_path)
        source = source.relative_to(tmp_path)
    assert read_all(source, tmp_path) == beneath(source)


def test_containers_in_a_folder_are_opened_and_containers_in_containers_are_not(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder")
    inner = in_zip(folder / "in" / "first.zip")
    tar = in_tar(folder / "second.tar.gz", {"inner.zip": inner.read_bytes()})
    assert read_all(folder, tmp_path) == (
        beneath(folder) | beneath(inner) | {f"{tar}/inner.zip": inner.read_bytes()}
    )


def test_one_image_is_its_own_archive(tmp_path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert read_all(file, tmp_path) == {str(file): file.read_bytes()}


def test_what_is_not_there_is_wrong_use(tmp_path) -> None:
    with pytest.raises(ConfigError):
        items(tmp_path / "nothing", tmp_path)


# --- lists and globs


def test_a_list_names_files_folders_and_containers_in_any_dialect(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_folder(tmp_path / "folder")
    in_zip(tmp_path / "x.zip")
    in_folder(tmp_path, {"ä ö.png": b"umlauts", "single": b"relative"})
    listed = "\ufeffä ö.png\r\n\r\nsingle\n\n\nmissing.png\r\nfolder\nx.zip\nmissing.zip\nfolder"
    (tmp_path / "list.txt").write_bytes(listed.encode())
    assert read_all("list.txt", tmp_path) == {
        "ä ö.png": b"umlauts",
        "single": b"relative",
        "missing.png": "cannot_open",
        "missing.zip": "cannot_open",
        **beneath("folder"),
        **beneath("x.zip"),
    }


def test_a_list_may_name_what_is_no_utf_8(tmp_path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    Path(os.fsdecode(name)).write_bytes(b"x")
    (tmp_path / "list").write_bytes(name + b"\n")
    assert read_all(tmp_path / "list", tmp_path) == {os.fsdecode(name): b"x"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_names_in_a_list_are_relative_to_it_or_to_the_current_directory(
    tmp_path, monkeypatch, encoding
) -> None:
    beside, here = in_folder(tmp_path / "beside"), in_folder(tmp_path / "here", {"e": b"here"})
    in_folder(here, {"a.png": b"another"})
    monkeypatch.chdir(here)
    names = ["a.png", ".\\in\\b.jpeg", "in\\deep er", "e", "missing.png", f"{here}/a.png"]
    (beside / "list.txt").write_bytes("\r\n".join(names).encode(encoding))
    assert read_all(beside / "list.txt", tmp_path) == {
        f"{beside}/a.png": b"first",
        f"{beside}/./in/b.jpeg": FILES["in/b.jpeg"],
        f"{beside}/in/deep er/c": b"",
        "e": b"here",
        "missing.png": "cannot_open",
        f"{here}/a.png": b"another",
    }


def test_a_name_with_a_backslash_is_a_name_if_it_is_there(tmp_path) -> None:
    in_folder(tmp_path, {"in\\b.jpeg": b"odd", "in/b.jpeg": b"even"})
    (tmp_path / "list").write_text("in\\b.jpeg")
    assert read_all(tmp_path / "list", tmp_path) == {f"{tmp_path}/in\\b.jpeg": b"odd"}


def test_a_text_that_is_no_list_is_wrong_use(tmp_path) -> None:
    (tmp_path / "data.json").write_text("[" + "0.125, " * 5000 + "]")
    with pytest.raises(ConfigError, match="neither"):
        items(tmp_path / "data.json", tmp_path)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", {"a.png"}),
        ("**", set(FILES)),
        ("**/*.[jd]*", {"in/b.jpeg", "in/d.dcm"}),
        ("i*", {name for name in FILES if name.startswith("in/")}),
        ("no*", set()),
    ],
)
def test_a_glob_finds_what_matches(pattern, expected, tmp_path) -> None:
    folder = in_folder(tmp_path / "folder")
    found = {item.path for item in items(folder / pattern, tmp_path)}
    assert found == {f"{folder}/{name}" for name in expected}


def test_a_name_with_signs_of_a_glob_is_a_name_if_it_is_there(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder [1]")
    assert read_all(folder, tmp_path) == beneath(folder)


# --- what lies about in folders

LITTER = {
    ".DS_Store": b"\0\0\0\1Bud1",
    "in/._b.jpeg": b"\0\5\x16\7",
    "__MACOSX/in/._b.jpeg": b"\0\5\x16\7",
    "in/Thumbs.db": b"\xd0\xcf\x11\xe0",
    "in/deep er/desktop.ini": b"[.ShellClassInfo]",
}


@pytest.mark.parametrize("make", [in_folder, in_zip, in_tar], ids=["folder", "zip", "tar"])
def test_what_systems_leave_behind_is_counted_and_not_listed(make, tmp_path) -> None:
    name = {in_folder: "folder", in_zip: "x.zip", in_tar: "x.tar"}[make]
    source = make(tmp_path / name, LITTER | FILES)
    walk = Walk(tmp_path / "out.csv")
    assert content(find(str(source), walk)) == beneath(source)
    assert walk.n_litter == len(LITTER)


def test_nor_does_a_list_or_a_glob_bring_it(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder", FILES | LITTER)
    (tmp_path / "list").write_text("\n".join(f"{folder}/{name}" for name in [*FILES, *LITTER]))
    walk = Walk(tmp_path / "out.csv")
    assert content(find(str(tmp_path / "list"), walk)) == beneath(folder)
    assert walk.n_litter == len(LITTER)
    assert read_all(f"{folder}/**", tmp_path) == beneath(folder)
    assert set(read_all(f"{folder}/in/*.db", tmp_path)) == set()


def test_what_is_named_itself_is_listed(tmp_path) -> None:
    folder = in_folder(tmp_path / "__MACOSX", {"a.png": b"\x89PNG\r\n\x1a\n\0\0"})
    for source in (folder, folder / "a.png", f"{folder}/*"):
        assert set(read_all(source, tmp_path)) == {f"{folder}/a.png"}


STRANGE_NAMES = ["new\nline", "carriage\rreturn", 'quo"te', "com,ma", "\ufeffbom", "\udcff\udc80"]


@pytest.mark.parametrize("name", STRANGE_NAMES, ids=ascii)
def test_strange_names_are_found_and_read(name, tmp_path) -> None:
    folder = in_folder(tmp_path / "folder", {name: b"x"})
    assert read_all(folder, tmp_path) == {f"{folder}/{name}": b"x"}


def test_links_are_followed_once_and_dead_ones_told(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder")
    elsewhere = in_folder(tmp_path / "elsewhere", {"e": b"e"})
    (folder / "dead").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to(folder)
    (folder / "file").symlink_to("a.png")
    (folder / "link 1").symlink_to(elsewhere)
    (folder / "link 2").symlink_to(elsewhere)
    read = read_all(folder, tmp_path)
    ends = [path for path in read if path.endswith("/e")]
    assert len(ends) == 1
    assert read.pop(ends[0]) == b"e"
    assert read == beneath(folder) | {
        f"{folder}/dead": "cannot_open",
        f"{folder}/loop": "cannot_open",
        f"{folder}/file": b"first",
    }


def test_pipes_sockets_and_devices_in_a_folder_are_no_files(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder")
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.zip")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        assert read_all(folder, tmp_path) == beneath(folder)


@pytest.mark.timeout(10)
def test_pipes_and_devices_that_are_named_are_not_waited_for(tmp_path) -> None:
    named = [tmp_path / name for name in ("pipe", "pipe.zip", "pipe.tar")]
    for pipe in named:
        os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    named += [tmp_path / "link", Path("/dev/zero")]
    (tmp_path / "list").write_text("\n".join(map(str, named)))
    assert read_all(tmp_path / "list", tmp_path) == dict.fromkeys(map(str, named), "cannot_open")


def test_a_folder_that_cannot_be_entered_is_a_row(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        found = items(folder, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert content(found) == {str(folder): "cannot_open"}


def test_a_file_that_vanishes_after_it_was_found_is_told(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder")
    zipped, tarred = in_zip(tmp_path / "folder/x.zip"), in_tar(tmp_path / "folder/x.tar")
    found = items(folder, tmp_path)
    for file in (folder / "a.png", zipped, tarred):
        file.unlink()
    lost = {*beneath(zipped), *beneath(tarred), f"{folder}/a.png"}
    assert content(found) == beneath(folder) | dict.fromkeys(lost, "cannot_open")


@pytest.mark.parametrize("way", ["folder", "glob", "list", "dots"])
def test_the_result_and_its_parts_are_not_part_of_the_archive(way, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = in_folder(tmp_path / "folder")
    in_folder(folder, {"out.csv": b"an older one", "out.csv.parts/00000000.csv": b"part"})
    (tmp_path / "list").write_text(f"{folder}\n{folder / 'out.csv'}")
    sources = {"folder": folder, "glob": f"{folder}/**", "list": "list", "dots": "folder/../folder"}
    parts = (folder / "out.csv.parts").stat()
    walk = Walk(Path("folder/out.csv"), {(parts.st_dev, parts.st_ino)})
    found = {os.path.relpath(item.path, "folder") for item in find(str(sources[way]), walk)}
    assert found == set(FILES)


# --- damage


def test_a_damaged_container_costs_itself_and_no_other(tmp_path) -> None:
    folder = in_folder(tmp_path / "folder")
    for name in ("cut.zip", "cut.tar.gz", "cut.tar.bz2", "cut.tar.xz"):
        whole = in_zip(folder / name) if name.endswith("zip") else in_tar(folder / name)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    in_folder(folder, {"no.zip": b"not a zip", "no.tar": b"not a tar", "empty.tgz": b""})
    read = read_all(folder, tmp_path)
    assert {path: data for path, data in read.items() if isinstance(data, bytes)}.items() >= (
        beneath(folder).items()
    )
    bad = ("cut.zip", "cut.tar.gz", "cut.tar.bz2", "cut.tar.xz", "no.zip", "no.tar", "empty.tgz")
    assert {path: read[path] for path in read if path in {f"{folder}/{n}" for n in bad}} == (
        dict.fromkeys((f"{folder}/{name}" for name in bad), "damaged_file")
    )


@pytest.mark.parametrize("damage", ["overwritten", "cut in a file", "cut in a header"])
def test_a_tar_damaged_midway_gives_what_stands_before_and_says_so(damage, tmp_path) -> None:
    file = in_tar(tmp_path / "x.tar", {"a": b"1" * 600, "b": b"2" * 600, "c": b"3" * 600})
    data = bytearray(file.read_bytes())
    header_of_c = data.index(b"c\0\0\0")
    if damage == "overwritten":
        data[header_of_c : header_of_c + 512] = b"!" * 512
    elif damage == "cut in a file":
        del data[header_of_c + 700 :]
    else:
        del data[header_of_c + 100 :]
    file.write_bytes(data)
    expected = {f"{file}/a": b"1" * 600, f"{file}/b": b"2" * 600, str(file): "damaged_file"}
    if damage == "cut in a file":
        expected[f"{file}/c"] = "damaged_file"
    assert read_all(file, tmp_path) == expected


def test_one_damaged_or_encrypted_file_in_a_zip_costs_no_other(tmp_path) -> None:
    files = {"a": b"aaaa", "b": b"bbbb", "c": b"cccc", "d": b"dddd"}
    file = in_zip(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    data = bytearray(file.read_bytes())
    data[data.index(b"bbbb")] ^= 1
    with zipfile.ZipFile(file) as archive:
        header = archive.getinfo("c").header_offset
    data[header + 6] |= 1  # the flag "encrypted", in the file's header and in the table
    table = [at for at in range(len(data)) if data[at : at + 4] == b"PK\1\2"]
    data[table[3] + 8] |= 1  # in/, a, b, c
    file.write_bytes(data)
    assert read_all(file, tmp_path) == {
        f"{file}/a": b"aaaa",
        f"{file}/b": "damaged_file",
        f"{file}/c": "unsupported_format",
        f"{file}/d": b"dddd",
    }


def test_what_zipfile_unpacks_without_a_bound_is_not_unpacked(tmp_path) -> None:
    for how in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = in_zip(tmp_path / f"{how}.zip", how=how)
        assert set(read_all(file, tmp_path).values()) == {"unsupported_format"}


def test_a_file_without_a_name_in_a_zip_is_found(tmp_path) -> None:
    file = in_zip(tmp_path / "x.zip", {"QQ": b"x"})
    file.write_bytes(file.read_bytes().replace(b"QQ", b"\0Q"))  # a name ends with the zero
    assert read_all(file, tmp_path) == {f"{file}/": b"x"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_another_file_in_the_place_of_one_is_never_taken_for_it(kind, tmp_path) -> None:
    make = in_zip if kind == "zip" else in_tar
    file = make(tmp_path / f"x.{kind}", {"a": b"1", "b": b"2", "c": b"3"})
    found = items(file, tmp_path)
    make(file, {"a": b"1", "x": b"!", "c": b"3"})
    assert content(found) == {f"{file}/a": b"1", f"{file}/b": "damaged_file", f"{file}/c": b"3"}
    make(file, {"a": b"1"})
    lost = dict.fromkeys((f"{file}/b", f"{file}/c"), "damaged_file")
    assert content(found) == {f"{file}/a": b"1"} | lost


def test_a_tar_gives_no_rows_for_links_and_devices(tmp_path) -> None:
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo("a")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"a"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo(f"link {kind!r}")
            link.type, link.linkname = kind, "a"
            archive.addfile(link)
    assert read_all(file, tmp_path) == {f"{file}/a": b"a"}


def test_long_names_of_gnu_and_pax_are_read(tmp_path) -> None:
    names = {"ä" * 100 + "/" + "n" * 200: b"x"}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = tmp_path / f"{form}.tar"
        with tarfile.open(file, "w", format=form) as archive:
            info = tarfile.TarInfo(next(iter(names)))
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        assert read_all(file, tmp_path) == beneath(file, names)


def header(kind: bytes = tarfile.REGTYPE, size: int = 0, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(text: bytes) -> bytes:
    record = next(made for n in range(99) if len(made := b"%d %s\n" % (n, text)) == n)
    return header(tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0")


HOSTILE_TARS = {
    "a size below zero": header() + header(size=-1024),
    "a size below zero in pax": header() + pax(b"size=-2048") + header() + header(),
    "a size beyond 64 bit": header() + header(size=2**70) + header(),
    "a header for headers": header(tarfile.GNUTYPE_LONGNAME, 1) * 5000,
    "names of headers": (header(tarfile.GNUTYPE_LONGNAME, 1) + b"x" * 512) * 5000,
    "a name of gigabytes": header(tarfile.GNUTYPE_LONGNAME, 2**34) + b"x" * 512,
    "a name of 200 kB": header(tarfile.GNUTYPE_LONGNAME, 204800) + b"\xff" * 204800 + header(),
    "a sparse map of words": pax(b"GNU.sparse.map=a,b") + header(),
    "a sparse map that ends": pax(b"GNU.sparse.major=1") + pax(b"GNU.sparse.minor=0") + header(),
    "a sparse file without its rest": header(tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + b"\0" * 29,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("data", HOSTILE_TARS.values(), ids=HOSTILE_TARS)
def test_a_hostile_tar_ends(data, tmp_path) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(data)
    found = list(islice(find(str(file), Walk(tmp_path / "out")), 10_000))
    assert len(found) <= len(data) / 512
    assert all(len(item.path) < 5000 for item in found)
    reader = Reader(TWO_MIB)
    for item in found:
        with suppress(CannotOpenError, UnreadableError):
            reader.loader(item)()
    reader.close()


def peak_growth_mib(statement: str) -> float:
    """By how much running ``statement`` in a process of its own lifts its greatest memory."""
    program = f"""
import resource, sys
from chestxray.archive.files import *
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
{statement}
print((peak() - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return float(done.stdout)


@pytest.mark.parametrize("kind", ["file", "zip", "tar.gz", "tar header"])
def test_what_is_too_large_is_not_read_whole(kind, tmp_path) -> None:
    size, max_bytes = 400 * 1024 * 1024, TWO_MIB
    if kind == "file":
        file = tmp_path / "huge.png"
        with file.open("wb") as stream:
            stream.truncate(size)
    elif kind == "zip":
        file = tmp_path / "x.zip"
        with (
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("huge", "w") as member,
        ):
            for _ in range(size // TWO_MIB):
                member.write(bytes(TWO_MIB))
    else:
        file = tmp_path / "x.tar.gz"
        info = tarfile.TarInfo("huge")
        if kind == "tar header":
            info.type = tarfile.XHDTYPE
        info.size = size
        with (
            tarfile.open(file, "w:gz", compresslevel=1) as archive,
            Path("/dev/zero").open("rb") as zero,
        ):
            archive.addfile(info, zero)
    growth = peak_growth_mib(f"""
found = list(find({str(file)!r}, Walk(Path("out"))))
reader = Reader({max_bytes})
assert len(found) == 1
try:
    assert len(reader.loader(found[0])()) == {max_bytes} + 1
except DamagedFileError:
    assert {kind == "tar header"}
""")
    assert growth < 60


def test_zips_read_by_many_threads_outlive_the_reader_going_on(tmp_path) -> None:
    """A loader may run long after the reader has opened the next zip."""
    for n in range(5):
        in_zip(tmp_path / f"{n}.zip")
    found = items(tmp_path, tmp_path)
    reader = Reader(TWO_MIB)
    loaders = {item.path: reader.loader(item) for item in found}
    read: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda p=path, load=load: read.__setitem__(p, load()))
        for path, load in loaders.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == {
        key: data for n in range(5) for key, data in beneath(tmp_path / f"{n}.zip").items()
    }
    reader.close()


def test_the_members_of_a_tar_may_be_asked_for_in_any_order(tmp_path) -> None:
    file = in_tar(tmp_path / "x.tar.gz")
    found = items(file, tmp_path)
    assert content(reversed(found)) == content(found) == beneath(file)


# --- anything at all

OPERATORS = [
    mutations.flip_bits,
    mutations.set_bytes,
    mutations.set_number,
    mutations.delete_block,
    mutations.repeat_block,
    mutations.insert_block,
]


def with_mended_sum(data: bytes) -> bytes:
    """A tar whose headers have the checksums that belong to them."""
    mended = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        if mended[at + 257 : at + 262] == b"ustar":
            mended[at + 148 : at + 156] = b" " * 8
            mended[at + 148 : at + 156] = b"%06o\0 " % sum(mended[at : at + 512])
    return bytes(mended)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_whatever_a_container_holds_only_our_errors_come_out(name, tmp_path) -> None:
    files = {"a.png": b"a" * 700, "ä" * 60 + "/" + "b" * 120: b"b" * 90, "c": bytes(range(256)) * 3}
    file = tmp_path / name
    (in_zip if name.endswith("zip") else in_tar)(file, files)
    if name == "x.zip":
        whole = [file.read_bytes(), in_zip(file, files, zipfile.ZIP_STORED).read_bytes()]
    else:
        whole = [file.read_bytes()]
    outcomes = set()
    for index in range(400):
        rng = Random(f"{name} {index}")
        data = rng.choice(whole)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice(OPERATORS)(rng, data)
        if name == "x.tar" and rng.random() < 0.8:
            data = with_mended_sum(data)
        file.write_bytes(data[:400_000])
        reader = Reader(10_000)
        for item in islice(find(str(file), Walk(tmp_path / "out")), 3000):
            try:
                assert len(reader.loader(item)()) <= 10_001
                outcomes.add("read")
            except (CannotOpenError, UnreadableError) as exc:
                outcomes.add(exc.code)
            except ChestXrayError as exc:  # pragma: no cover
                pytest.fail(f"{index}: {exc!r}")
        reader.close()
    assert outcomes >= {"read", DamagedFileError.code}
    assert UnsupportedFormatError.code in outcomes or name != "x.zip"

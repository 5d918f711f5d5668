"""Which licences the distributions have that this project brings along, and whether they may.

    .venv/bin/python release/licences.py            # writes the tables of docs/licences.md
    .venv/bin/python release/licences.py --check    # exits 1 if they are stale

A licence is an SPDX expression: the one in a distribution's metadata, or, where the metadata have
none, the one of ``STATED``, which somebody read in the licence's text. Nothing is guessed: a
distribution without either has no known licence, and that is an error.

Does not: read licence texts, give legal advice, or look into a wheel for what was compiled into it;
``NATIVE`` says what we know of that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackagePath, distribution
from pathlib import Path
from typing import Any, NamedTuple

from license_expression import (
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    get_spdx_licensing,
)
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "licences.md"
OURS = "chestxray"
EXTRAS = ("pacs", "client", "parquet", "cluster", "evaluate", "train")

PERMISSIVE = frozenset(
    (
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-CMU",
        "PSF-2.0",
        "Zlib",
    )
)
PERMISSIVE_EXCEPTIONS = frozenset({("Apache-2.0", "LLVM-exception")})

NOTED = {
    "certifi": "MPL-2.0 binds changes to its own files only. We change none: it is a list of "
    "certificate authorities, read by httpx and requests.",
}
"""Weak copyleft, allowed distribution by distribution, each with its reason."""

STATED = {
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "PSF-2.0",
    "mpmath": "BSD-3-Clause",
    "protobuf": "BSD-3-Clause",
    "ray": "Apache-2.0",
    "scipy": "BSD-3-Clause",
    "shellingham": "ISC",
    "sympy": "BSD-3-Clause",
    "uvloop": "MIT OR Apache-2.0",
}
"""Read in the text: these metadata say "BSD", quote all of it, or give nothing in SPDX's words.
Matplotlib's text is the PSF's with another name in it."""

CLASSIFIED = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
}
"""The classifiers that name one licence; "BSD License" does not say which."""


class Carried(NamedTuple):
    """Other people's work inside a wheel, and where in ``site-packages`` its texts are (a glob)."""

    what: str
    texts: str


NATIVE = {
    "imagecodecs": Carried(
        "some fifty codec libraries; their texts mention the GPL once, as a choice that liblzf "
        "leaves; libgomp (GPL-3.0-or-later WITH GCC-exception-3.1), whose text is not in the "
        "wheel. HEIF, which would bring the LGPL and the GPL (libheif, libde265, x265), is not in "
        "the wheel",
        "imagecodecs/licenses",
    ),
    "numpy": Carried(
        "OpenBLAS (BSD-3-Clause), LAPACK (BSD-3-Clause-Open-MPI), libgfortran (GPL-3.0-or-later "
        "WITH GCC-exception-3.1), libquadmath (LGPL-2.1-or-later)",
        "numpy-*.dist-info/licenses/LICENSE.txt",
    ),
    "onnxruntime": Carried(
        "what its makers compiled in: among permissive ones Eigen (MPL-2.0) and Mbed TLS "
        "(Apache-2.0, or the GPL as a choice)",
        "onnxruntime/ThirdPartyNotices.txt",
    ),
    "pillow": Carried(
        "libjpeg-turbo, libtiff, OpenJPEG, libavif, HarfBuzz and others; FreeType (taken under the "
        "FTL, not the GPL); liblzma (0BSD; the LGPL and GPL parts of xz are not in the library)",
        "pillow-*.dist-info/licenses/LICENSE",
    ),
    "scikit-learn": Carried(
        "libgomp (GPL-3.0-or-later WITH GCC-exception-3.1)",
        "scikit_learn-*.dist-info/licenses/COPYING",
    ),
    "scipy": Carried(
        "OpenBLAS, LAPACK, libgfortran and libquadmath, as in numpy",
        "scipy-*.dist-info/LICENSE.txt",
    ),
    "setuptools": Carried(
        "autocommand (LGPL-3.0), as source; torch asks for setuptools, nothing here imports it",
        "setuptools/_vendor/autocommand-*.dist-info/LICENSE",
    ),
    "torch": Carried(
        "libgomp (GPL-3.0-or-later WITH GCC-exception-3.1), oneDNN and many others; one text "
        "of the GPL is of a test that is not in the wheel",
        "torch-*.dist-info/licenses",
    ),
}
"""What we know of the insides of wheels."""

MENTIONED = {
    "grpcio": "the MPL-2.0, of the certificate authorities that it carries, names the GPL",
    "matplotlib": "FreeType, compiled in, leaves the GPL as a choice beside its own FTL",
    "ml-dtypes": "the MPL-2.0 of Eigen, headers that are compiled in, names the GPL",
    "pandas": "Python's history, in the PSF's licence, names the GPL",
    "pyarrow": "LLVM's exception to Apache-2.0 names the GPL",
    "ray": "Python's history, in the PSF's licence of what it carries, names the GPL",
    "typing-extensions": "Python's history, in the PSF's licence, names the GPL",
}
"""Why a text among these distributions' licences speaks of the GPL, without one of ``NATIVE``."""

_LICENCE_FILE = re.compile(r"licen[cs]e|notice|copying", re.IGNORECASE)
_GPL = re.compile(rb"general\s+public\s+licen[cs]e|\b[AL]?GPL", re.IGNORECASE)
_SPDX = get_spdx_licensing()


class LicenceError(Exception):
    """A distribution whose licence is not known or not allowed."""


def licence_in_metadata(found: Distribution) -> str | None:
    """The SPDX expression that a distribution's metadata give, if they give exactly one."""
    metadata = found.metadata
    for field in ("License-Expression", "License"):
        if field not in metadata:
            continue
        try:
            return canonicalize_license_expression(metadata[field])
        except InvalidLicenseExpression:
            continue
    named = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    return CLASSIFIED.get(named[0]) if len(named) == 1 else None


def licence_of(found: Distribution) -> str:
    """The SPDX expression of a distribution.

    Raises:
        LicenceError: it is not known, or not allowed.
    """
    name = canonicalize_name(found.name)
    expression = licence_in_metadata(found) or STATED.get(name)
    if expression is None:
        raise LicenceError(
            f"{name} {found.version}: no known licence; read it and add it to STATED"
        )
    if not is_permissive(expression) and name not in NOTED:
        raise LicenceError(f"{name} {found.version}: {expression} is neither permissive nor noted")
    if is_strong_copyleft(expression):
        raise LicenceError(f"{name} {found.version}: {expression} is GPL or AGPL")
    return expression


def is_permissive(expression: str) -> bool:
    """Whether we may take all of ``expression`` under permissive licences."""
    return _holds(_SPDX.parse(expression), permissive_only=True)


def is_strong_copyleft(expression: str) -> bool:
    """Whether ``expression`` leaves no choice but the GPL or the AGPL."""
    return not _holds(_SPDX.parse(expression), permissive_only=False)


def _holds(tree: Any, *, permissive_only: bool) -> bool:
    if isinstance(tree, LicenseWithExceptionSymbol):
        pair = (tree.license_symbol.key, tree.exception_symbol.key)
        return pair in PERMISSIVE_EXCEPTIONS
    if isinstance(tree, LicenseSymbol):
        weak = tree.key.startswith(("LGPL-", "MPL-"))
        return tree.key in PERMISSIVE or (weak and not permissive_only)
    every = all if isinstance(tree, _SPDX.AND) else any
    return every(_holds(part, permissive_only=permissive_only) for part in tree.args)


def brought_by(extra: str = "") -> dict[str, Distribution]:
    """What the base install, or it with an extra, brings into this environment; not us."""
    found: dict[str, Distribution] = {}
    wanted, seen = [(OURS, extra)], set()
    while wanted:
        name, of_extra = wanted.pop()
        if (name, of_extra) in seen:
            continue
        seen.add((name, of_extra))
        found[name] = distribution(name)
        for requirement in map(Requirement, found[name].requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": of_extra}):
                needed = canonicalize_name(requirement.name)
                wanted += [(needed, further) for further in ("", *requirement.extras)]
    return {name: found[name] for name in sorted(found) if name != OURS}


def brought_by_extras() -> dict[str, Distribution]:
    """What all extras bring that the base install does not."""
    found = {name: one for extra in EXTRAS for name, one in brought_by(extra).items()}
    base = brought_by()
    return {name: found[name] for name in sorted(found) if name not in base}


def texts_in(found: Distribution) -> list[str]:
    """Where a distribution keeps licence texts: files, and folders of more than one."""
    parents: dict[str, list[str]] = {}
    for file in _licence_files(found):
        in_metadata = file.parts[0].endswith(".dist-info")
        parent = file.parts[0] if in_metadata else file.parent.as_posix()
        parents.setdefault(parent, []).append(file.as_posix())
    return [
        files[0] if len(files) == 1 else f"{parent} ({len(files)} files)"
        for parent, files in sorted(parents.items())
    ]


def mentions_of_the_gpl(found: Distribution) -> list[str]:
    """The licence texts of a distribution that speak of the GPL, LGPL or AGPL."""
    return [
        file.as_posix()
        for file in _licence_files(found)
        if _GPL.search(Path(str(found.locate_file(file))).read_bytes())
    ]


def _licence_files(found: Distribution) -> list[PackagePath]:
    return [
        file
        for file in found.files or []
        if _LICENCE_FILE.search(file.name) and file.suffix not in (".py", ".pyc", ".so")
    ]


def by_licence(distributions: Iterable[Distribution]) -> str:
    """A table of licences and the distributions that have them."""
    names: dict[str, list[str]] = {}
    for found in distributions:
        names.setdefault(licence_of(found), []).append(canonicalize_name(found.name))
    rows = [f"| {licence} | {', '.join(sorted(names[licence]))} |" for licence in sorted(names)]
    return "\n".join(["| licence | distributions |", "|---|---|", *rows])


def native(names: Iterable[str]) -> str:
    """A table of what else is in the wheels of ``names``."""
    rows = [
        f"| {name} | {NATIVE[name].what} | `{NATIVE[name].texts}` |"
        for name in sorted(names)
        if name in NATIVE
    ]
    return "\n".join(["| in the wheel of | there is | texts |", "|---|---|---|", *rows])


def noted(names: Iterable[str]) -> str:
    """A table of the reasons for what is not permissive."""
    rows = [f"| {name} | {NOTED[name]} |" for name in sorted(names) if name in NOTED]
    return "\n".join(["| distribution | why it may come along |", "|---|---|", *rows])


def listed(distributions: Iterable[Distribution]) -> str:
    """A table of every distribution: version, licence, where its texts are."""
    rows = [
        f"| {canonicalize_name(found.name)} | {found.version} | {licence_of(found)} "
        f"| {', '.join(f'`{text}`' for text in texts_in(found)) or 'none in the wheel'} |"
        for found in sorted(distributions, key=lambda one: canonicalize_name(one.name))
    ]
    return "\n".join(
        [
            "| distribution | version | licence | texts, in site-packages |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def page() -> str:
    """``docs/licences.md`` with the tables that this environment gives."""
    base, extras = brought_by(), brought_by_extras()
    tables = {
        "base": by_licence(base.values()),
        "extras": by_licence(extras.values()),
        "noted": noted([*base, *extras]),
        "native-base": native(base),
        "native-extras": native(extras),
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        opened, closed = f"<!-- licences:{name} -->\n", "\n<!-- /licences -->"
        before, rest = text.split(opened)
        text = before + opened + table + closed + rest.split(closed, 1)[1]
    return text


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    made = page()
    if arguments == ["--check"]:
        if made != PAGE.read_text(encoding="utf-8"):
            print(f"{PAGE} is stale: run {Path(__file__).name}", file=sys.stderr)
            return 1
        return 0
    if arguments:
        print(f"usage: {Path(__file__).name} [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

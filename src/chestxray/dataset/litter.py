"""Knows the files that operating systems leave in folders, and so in zips and lists of paths.

Does not: look into a file. One that is named as macOS names its forks is taken for one.
"""

from __future__ import annotations

LITTER = frozenset(
    {
        *(".ds_store", "__macosx", ".apdisk", ".spotlight-v100", ".trashes", ".fseventsd"),
        *(".temporaryitems", ".documentrevisions-v100", "icon\r"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *(".directory", "@eadir"),  # KDE, Synology
    }
)


def is_litter(path: str) -> bool:
    """Whether the file, or a folder on the way to it, is one that a system left behind."""
    return any(
        name.startswith("._") or name.casefold() in LITTER
        for name in path.replace("\\", "/").split("/")
    )

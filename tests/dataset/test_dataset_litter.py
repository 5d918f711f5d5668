import pytest

from chestxray.dataset.litter import is_litter


@pytest.mark.parametrize(
    "path",
    [
        ".DS_Store",
        "a/b/.DS_Store",
        "__MACOSX/a/._b.jpeg",
        "a/._b.jpeg",
        "Thumbs.db",
        "a\\THUMBS.DB",
        "a/desktop.ini",
        "a/@eaDir/b.jpeg",
        "$RECYCLE.BIN/b.jpeg",
    ],
)
def test_what_systems_leave_behind_is_litter(path):
    assert is_litter(path)


@pytest.mark.parametrize(
    "path", ["a.png", "a/.hidden.png", "_.png", "thumbs.png", "macosx/a.png", ""]
)
def test_what_is_somebodys_is_not(path):
    assert not is_litter(path)

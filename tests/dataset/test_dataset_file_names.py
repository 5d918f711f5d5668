import pytest

from chestxray.dataset.file_names import FileNames

NAMES = FileNames(["a.png", "N/a.png", "N/b.png", "P/b.png", "P/sub/c.png", "P/d\u00e4.png"], "set")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("N/a.png", ["N/a.png"]),
        ("N\\a.png", ["N/a.png"]),
        ("./N/./a.png", ["N/a.png"]),
        ("a.png", ["a.png"]),  # the whole path of one, the end of another
        ("b.png", ["N/b.png", "P/b.png"]),
        ("sub/c.png", ["P/sub/c.png"]),
        ("c.png", ["P/sub/c.png"]),
        ("set/N/b.png", ["N/b.png"]),
        ("/home/me/set/N/b.png", ["N/b.png"]),
        ("D:\\set\\N\\b.png", ["N/b.png"]),
        ("../set/N/b.png", ["N/b.png"]),
        ("d:\\SET\\n\\B.PNG", ["N/b.png"]),
        ("\\\\server\\share\\set\\N\\b.png", ["N/b.png"]),
        ("E:/elsewhere/N/b.png", ["N/b.png"]),
        ("/elsewhere/sub/c.png", []),
        ("n//B.PNG", ["N/b.png"]),
        ("P/da\u0308.png", ["P/d\u00e4.png"]),
        ("other/N/b.png", []),
        ("N", []),
        ("png", []),
        ("", []),
    ],
)
def test_a_name_means_the_files_that_it_fits(written, meant):
    assert NAMES.find(written) == meant


def test_capitals_tell_files_apart_where_they_do():
    names = FileNames(["N/a.png", "N/A.png", "n/b.png"])
    assert names.find("N/A.png") == ["N/A.png"]
    assert names.find("n/A.PNG") == ["N/a.png", "N/A.png"]
    assert names.find("N/B.png") == ["n/b.png"]


def test_two_spellings_of_one_name_on_the_disk_are_two_files():
    spellings = ["d\u00e4.png", "da\u0308.png"]
    assert FileNames(spellings).find("d\u00e4.png") == spellings

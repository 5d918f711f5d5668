import pytest

from chestxray.dataset.encoding import encoding_of


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_a_text_is_read_in_the_encoding_that_it_begins_in(encoding):
    text = "file,patient\nä.png,7\n"
    raw = text.encode(encoding)
    assert raw.decode(encoding_of(raw)) == text


@pytest.mark.parametrize("head", [b"", b"f", b"\0", b"\0\0\0\0", b"\xff\xd8\xff\xe0"])
def test_whatever_else_begins_a_file_is_taken_for_utf_8(head):
    assert encoding_of(head) == "utf-8-sig"

import pytest

from app.workers.process import LONGEST_LINE, WholeLines


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_and_characters_cut_anywhere_come_out_whole(size: int) -> None:
    said = "cleaned up the task was cancelled\né€🙂\n\nlast".encode()
    whole = WholeLines()
    lines = [line for at in range(0, len(said), size) for line in whole.feed(said[at : at + size])]
    assert lines == ["cleaned up the task was cancelled", "é€🙂", ""]
    assert whole.feed(b"") == ["last"]


def test_what_never_ends_is_not_kept_for_ever() -> None:
    whole = WholeLines()
    assert whole.feed(b"x" * LONGEST_LINE) == []
    assert whole.feed(b"x") == ["x" * (LONGEST_LINE + 1)]
    assert whole.feed(b"y\n") == ["y"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert WholeLines().feed(b"\xff\n") == ["\ufffd"]

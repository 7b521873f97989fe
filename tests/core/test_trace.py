import pytest

from app.core.trace import Trace, trace_of

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"


@pytest.mark.parametrize(
    ("parent", "state", "expected"),
    [
        (PARENT, None, Trace(PARENT)),
        (PARENT, "congo=t61,rojo=00f0", Trace(PARENT, "congo=t61,rojo=00f0")),
        (PARENT, "", Trace(PARENT)),
        (PARENT, "x" * 513, Trace(PARENT)),
        (PARENT, "a=\x00", Trace(PARENT)),
        (PARENT, "a=é", Trace(PARENT)),
        (f"01-{ID}-{SPAN}-01-what-comes", None, Trace(PARENT)),
        *(
            (wrong, "a=1", None)
            for wrong in (
                *("", "x", PARENT.upper(), f"ff-{ID}-{SPAN}-01", f"{PARENT}-more", f" {PARENT}", f"{PARENT}\n"),
                *(f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01", f"00-{ID}-{SPAN}", "9" * 5000),
            )
        ),
        (None, "a=1", None),
    ],
)
def test_what_is_a_trace(parent: str | None, state: str | None, expected: Trace | None) -> None:
    assert trace_of(parent, state) == expected

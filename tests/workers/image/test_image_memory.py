"""In processes of their own: a limit holds for a whole process, pytest included."""

import subprocess
import sys

import pytest

from app.services.executors import Fail
from app.workers.image.memory import limited_memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts such memory on Linux only")
BEGIN = """
import resource, threading
from app.services.executors import Fail
from app.workers.image.memory import limited_memory
from tests.workers.image.pictures import file_of, quarters, run
from PIL import Image
MIB = 2**20
before = resource.getrlimit(resource.RLIMIT_DATA)
"""


def python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@linux
def test_a_block_that_takes_more_ends_in_fail_and_the_process_is_as_before() -> None:
    said = python("""
held = bytearray(100 * MIB)  # what is there already does not count
for _ in range(3):
    with limited_memory(32 * MIB):
        bytearray(10 * MIB)
    try:
        with limited_memory(32 * MIB):
            bytearray(150 * MIB)  # malloc may hold up to 64 MiB that are free, and count already
    except Fail as error:
        print(error)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    bytearray(150 * MIB)
    threading.Thread(target=int).start()
""")
    assert said == ["the picture needs more than the 32 MiB of memory that one task may use"] * 3


@linux
@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "bmp", "tiff", "avif"])
def test_a_picture_that_needs_more_fails_and_the_next_one_is_made(kind: str) -> None:
    said = python(f"""
large = file_of(Image.new("RGB", (4000, 3000), "#123456"), {kind!r}, **({{"speed": 10}} if {kind!r} == "avif" else {{}}))
turn = {{"operation": "rotate", "degrees": 10}}
try:
    with limited_memory(30 * MIB):
        run(large, turn)
except Fail as error:
    print(type(error.__context__), error)
assert resource.getrlimit(resource.RLIMIT_DATA) == before
with limited_memory(30 * MIB):
    result, picture = run(file_of(quarters(), {kind!r}), {{"operation": "thumbnail", "width": 20}})
print(picture.size)
""")
    assert said[-1] == "(20, 15)"
    assert len(said) == 2
    assert "memory" in said[0] or "broken" in said[0]  # some decoders only say that they could not go on


@linux
def test_a_lower_limit_that_is_there_already_stays() -> None:
    said = python("""
used = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (500 * MIB, used[1]))
with limited_memory(4000 * MIB):
    print(resource.getrlimit(resource.RLIMIT_DATA)[0] // MIB)
print(resource.getrlimit(resource.RLIMIT_DATA)[0] // MIB)
""")
    assert said == ["500", "500"]


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), limited_memory(2**30):
        raise ZeroDivisionError
    with pytest.raises(Fail, match="memory"), limited_memory(2**30):
        raise MemoryError

"""Names of files are labels; what is served is an attachment that no browser runs."""

import hashlib
import os
from pathlib import Path

import pytest

from app.core.settings import Settings
from tests.api.conftest import raw
from tests.security.conftest import House

NAMES = [
    *(
        "../../etc/passwd",
        "..\\..\\windows\\win.ini",
        "/etc/passwd",
        "C:\\boot.ini",
        "....//....//x",
        "..",
        ".",
        "",
        " ",
        "/",
    ),
    *(
        "a/b",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\r\nSet-Cookie: x=1",
        'a"b',
        "a;b",
        "a%2fb",
        "%2e%2e%2f",
        "~root",
        "$HOME",
        "`id`",
    ),
    *(
        "con",
        "nul.txt",
        "a" * 300,
        "é",
        "日本.png",
        "\u202egpj.exe",
        "\u200b",
        "a\u0000",
        "\ufeffa",
        "-rf",
        "--help",
        "|cat",
    ),
    *(
        "<script>alert(1)</script>.html",
        "x.svg",
        "x.html",
        "x.php",
        ".htaccess",
        ".env",
        "a'b",
        "a*b",
        "a?b",
        "a:b",
        "..;/x",
    ),
    *(
        "file:///etc/passwd",
        "\\\\host\\share",
        "..%c0%af",
        "..%252f",
        "a/../../b",
        "./a",
        "a/.",
        "a/..",
        "tasks.db",
        "drafts/x",
    ),
    *("\x1b[31mred", "\x7f", "\x9b", "a\tb"),
]
IDS = [
    "%2e%2e",
    "../tasks.db",
    "%2e%2e%2ftasks.db",
    "..%2f..%2fetc%2fpasswd",
    "0" * 31,
    "0" * 33,
    "G" * 32,
    "A" * 32,
    "0" * 31 + "%00",
]
IDS += ["0" * 32 + "/..", "0" * 32 + "%2f..", ".", "*", "drafts", "00", "0" * 31 + "/", "é" * 32]


def tree(folder: Path) -> dict[str, str]:
    """Every file below the folder, with what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("tasks.db")
    }


def form(name: str, content_type: str = "text/html") -> bytes:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').encode()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + quoted + b'"\r\n'
    return head + b"Content-Type: " + content_type.encode() + b"\r\n\r\ndata\r\n--b--\r\n"


def headers_of(house: House) -> list[tuple[bytes, bytes]]:
    key = f"Bearer {house.keys['all']}".encode()
    return [(b"authorization", key), (b"content-type", b"multipart/form-data; boundary=b")]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_never_a_path(house: House, settings: Settings, tmp_path: Path, name: str) -> None:
    outside = tree(tmp_path)
    status, _, content = await raw(house.client, "POST", "/files", headers=headers_of(house), body=[form(name)])
    assert status in (201, 422), content
    made = {path for path in tree(tmp_path) if path not in outside}
    assert all(Path(path).is_relative_to(settings.files_dir.relative_to(tmp_path)) for path in made)
    if status == 201:
        (path,) = made
        shown = (await house.ask("GET", "/files/" + Path(path).name, "all")).headers["content-disposition"]
        assert shown.isprintable()
        assert shown.startswith('attachment; filename="')
        label = shown.split('"')[1]
        assert not set(label) & set("/\\\r\n\0;")
        assert label not in ("", ".", "..")


@pytest.mark.parametrize("file_id", IDS)
async def test_an_id_leads_nowhere_else(house: House, file_id: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        answer = await house.ask(method, f"/files/{file_id}", "admin")
        assert answer.status_code in (404, 405, 422)


async def test_a_link_in_the_folder_is_not_followed_out_of_it(house: House, settings: Settings, tmp_path: Path) -> None:
    file_id = await house.uploaded("all")
    (path,) = (one for one in settings.files_dir.rglob(file_id) if one.is_file())
    secret = tmp_path / "secret"
    secret.write_bytes(b"top secret")
    path.unlink()
    os.symlink(secret, path)
    answer = await house.ask("GET", f"/files/{file_id}", "all")
    assert b"top secret" not in answer.content
    await house.ask("DELETE", f"/files/{file_id}", "all")
    assert secret.read_bytes() == b"top secret"


@pytest.mark.parametrize(
    ("declared", "served"),
    [
        *(("text/html", "application/octet-stream"), ("image/svg+xml", "application/octet-stream")),
        *(("application/xhtml+xml", "application/octet-stream"), ("text/javascript", "application/octet-stream")),
        *(("text/xml", "application/octet-stream"), ("multipart/x-mixed-replace", "application/octet-stream")),
        *(
            ("application/x-shockwave-flash", "application/octet-stream"),
            ("TEXT/HTML; charset=utf-7", "application/octet-stream"),
        ),
        *(
            ("image/png", "image/png"),
            ("text/plain; charset=utf-7", "text/plain; charset=utf-8"),
            ("nonsense", "application/octet-stream"),
        ),
    ],
)
async def test_what_a_browser_would_run_is_served_as_bytes(house: House, declared: str, served: str) -> None:
    body = [form("x.html", declared)]
    _, made, _ = await raw(house.client, "POST", "/files", headers=headers_of(house), body=body)
    answer = await house.ask("GET", made["location"], "all")
    assert answer.headers["content-type"] == served
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["content-disposition"].startswith("attachment;")

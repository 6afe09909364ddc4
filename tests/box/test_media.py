from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyfat.box.runtimes import media
from tinyfat.domain.turns import Attachment


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace" / "out").mkdir(parents=True)
    (tmp_path / "workspace" / "out" / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "workspace"


@pytest.mark.parametrize(
    ("text", "left", "paths"),
    [
        ("no files", "no files", ()),
        ("Here.\nMEDIA:./out/a.pdf", "Here.", ("./out/a.pdf",)),
        ("One\n\nMEDIA: out/a b.pdf \n\nTwo\nMEDIA:`out/c.pdf`", "One\n\nTwo", ("out/a b.pdf", "out/c.pdf")),
        ("say MEDIA:./x inline", "say MEDIA:./x inline", ()),
        ("MEDIA:", "MEDIA:", ()),
        ("So:\n```\nMEDIA:./out/a.pdf\n```", "So:\n```\nMEDIA:./out/a.pdf\n```", ()),
        ("So:\n~~~~\n~~~\nMEDIA:./x\n~~~~\nMEDIA:./y", "So:\n~~~~\n~~~\nMEDIA:./x\n~~~~", ("./y",)),
        ("```sh\nMEDIA:./x\n``` end\nMEDIA:./y", "```sh\nMEDIA:./x\n``` end\nMEDIA:./y", ()),
        ("> MEDIA:./quoted", "> MEDIA:./quoted", ()),
        ("Here.\r\nMEDIA:./out/a.pdf\r\n", "Here.", ("./out/a.pdf",)),
    ],
)
def test_media_lines_leave_the_text(text: str, left: str, paths: tuple[str, ...]) -> None:
    assert media.split_media_lines(text) == (left, paths)


def test_files_of_the_workspace_are_read_however_they_are_named(workspace: Path) -> None:
    absolute = workspace / "out" / "a.pdf"

    for path in ("./out/a.pdf", "out/../out/a.pdf", str(absolute), absolute.as_uri()):
        collected = media.collect(workspace, [path])
        assert collected.attachments == (Attachment("a.pdf", "application/pdf", b"%PDF"),), path


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.txt", "/etc/hostname", "out/link.txt", "loop/secret.txt", "out", ".", "pipe", "missing"),
        *("https://example.org/a.pdf", "file://example.org/etc/hostname", "media://inbound/a.pdf", "\x00", "a" * 5000),
    ],
)
def test_nothing_else_is_read(workspace: Path, path: str) -> None:
    (workspace / "out" / "link.txt").symlink_to(workspace.parent / "secret.txt")
    (workspace / "loop").symlink_to(workspace.parent)
    os.mkfifo(workspace / "pipe")

    collected = media.collect(workspace, [path])

    assert collected.attachments == ()
    assert len(collected.refused) == 1


def test_each_reason_is_told_in_words(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "out" / "link.txt").symlink_to(workspace.parent / "secret.txt")
    (workspace / "out" / "dangling").symlink_to(workspace / "nowhere")
    os.mkfifo(workspace / "pipe")
    with (workspace / "huge.bin").open("wb") as file:
        file.truncate(media.BYTES_MAX + 1)
    told = {
        "missing.pdf": "it is not there",
        "out": "it is a folder",
        "out/link.txt": "it is outside the workspace",
        "out/dangling": "it is not there",
        "pipe": "it is not a regular file",
        "huge.bin": "it is larger than 25 MB",
        "../secret.txt": "it is outside the workspace",
        "\x00": "its name cannot be used",
        "out/a.pdf/deeper": "it is not there",
        "https://example.org/a.pdf": "only files of the workspace can be attached",
        "a" * 200: "it is not there",
    }
    assert media.collect(workspace, told).refused == told
    real = os.open

    def denied(path: str, *rest: int, dir_fd: int | None = None) -> int:
        if path == "a.pdf":
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", denied)
    assert media.collect(workspace, ["out/a.pdf"]).refused == {"out/a.pdf": "it cannot be read"}


def test_files_are_bounded_in_number_and_in_bytes(workspace: Path) -> None:
    for number in range(30):
        (workspace / "out" / f"{number}.bin").write_bytes(b"x" * 10)

    many = media.collect(workspace, [f"out/{number}.bin" for number in range(30)])
    large = media.collect(workspace, [f"out/{number}.bin" for number in range(5)], bytes_max=25)
    twice = media.collect(workspace, ["out/1.bin", "out/1.bin"])

    assert (len(many.attachments), len(many.refused)) == (media.FILES_MAX, 30 - media.FILES_MAX)
    assert (len(large.attachments), len(large.refused)) == (2, 3)
    assert len(twice.attachments) == 1


@given(st.lists(st.text(max_size=30) | st.sampled_from(["..", "/", "out", "link", "secret.txt"]), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_leads_out(workspace: Path, parts: list[str]) -> None:
    collected = media.collect(workspace, ["/".join(parts)])

    assert all(attachment.content == b"%PDF" for attachment in collected.attachments)


def test_saved_files_have_safe_names_and_the_same_place_again(workspace: Path) -> None:
    files = [Attachment("../../etc/passwd", "text/plain", b"1"), Attachment("ü\n.txt", "text/plain", b"2")]

    first = media.save_inbox(workspace, "t1", files)
    again = media.save_inbox(workspace, "t1", files)

    assert first == again
    assert [Path(path).name for path in first] == ["1-passwd", "2-ü_.txt"]
    assert [(workspace / path).read_bytes() for path in first] == [b"1", b"2"]
    assert media.save_inbox(workspace, "t1", []) == ()


def test_an_inbox_that_leads_out_is_not_written_to(workspace: Path) -> None:
    (workspace / "inbox").symlink_to(workspace.parent)

    with pytest.raises(OSError, match="out of the workspace"):
        media.save_inbox(workspace, "t1", [Attachment("a", "text/plain", b"1")])


@given(st.text(max_size=400))
def test_a_safe_name_is_one_component_on_one_line(name: str) -> None:
    safe = media.safe_filename(name)

    assert safe not in ("", ".", "..")
    assert "/" not in safe
    assert len(safe) <= media.FILENAME_CHARS_MAX
    assert len(f"{safe}.".splitlines()) == 1

"""How long a start may take: more after it was not enough, by this machine's own history, and bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinyfat.box.patience import Patience


def test_a_start_that_was_killed_is_given_longer_until_it_is_enough(tmp_path: Path) -> None:
    """Ready after 473 s at a load of ten: twice 180 s was never going to be enough."""
    file, needed, kills = tmp_path / "starts.json", 473.0, 0
    while (given := Patience(file, 180.0, 3600.0).seconds()) < needed:
        Patience(file, 180.0, 3600.0).was_killed(given)
        kills += 1
    assert kills == 2
    Patience(file, 180.0, 3600.0).was_ready(needed)
    assert Patience(file, 180.0, 3600.0).seconds() == 3 * needed


def test_it_is_bounded_and_comes_down_again(tmp_path: Path) -> None:
    patience = Patience(tmp_path / "starts.json", 180.0, 3600.0)
    for _ in range(20):
        patience.was_killed(patience.seconds())
    assert patience.seconds() == 3600.0
    for _ in range(8):
        patience.was_ready(4.0)
    assert patience.seconds() == 180.0


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"starts": [-1], "not_enough": 1e99}', '{"starts": 5}', "\0"])
def test_a_file_that_is_none_of_ours_is_no_history(tmp_path: Path, text: str) -> None:
    (tmp_path / "starts.json").write_text(text)
    assert Patience(tmp_path / "starts.json", 180.0, 3600.0).seconds() == 180.0

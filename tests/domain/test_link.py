"""The frames of the link: what is encoded comes back the same, and no hostile text gets past `decode`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.link import (
    ANSWER_CHARS_MAX,
    ATTACHMENTS_MAX,
    LOG_LINE_CHARS_MAX,
    Frame,
    FrameRefused,
    FrameTooLong,
    Hello,
    Log,
    LogLine,
    ModelAccess,
    Piece,
    RuntimeSpec,
    RuntimeState,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnReceived,
    TurnSettled,
    Welcome,
)
from tinyfat.domain.link_json import decode, encode, read_frame
from tinyfat.domain.link_pieces import fits_a_frame, headed, joined, pieces
from tinyfat.domain.turns import Attachment, Turn, TurnOutcome, TurnResult

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
counts = st.integers(0, 2**53)
moments = st.floats(0, 4e9)
attachments = st.lists(st.builds(Attachment, words, words, st.binary(max_size=50)), max_size=3).map(tuple)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=3,
)
usages = st.dictionaries(words, st.integers(0, 10**9) | st.floats(0, 100) | words, max_size=4)
specs = st.builds(RuntimeSpec, words, words, st.builds(ModelAccess, words, words, words, words), counts)
turns = st.builds(Turn, ids, ids, words, st.floats(0, 1e6), attachments)
failures = st.sampled_from([kind for kind in FailureId if kind is not FailureId.SILENT]).map(Failure)
answered = st.tuples(st.just(TurnOutcome.ANSWERED), st.none())
failed = st.tuples(st.just(TurnOutcome.FAILED), failures)
silent = st.just((TurnOutcome.SILENT, Failure(FailureId.SILENT)))
results = st.builds(
    lambda ended, text, files, detail, received, at, usage: TurnResult(
        ended[0], text, files, ended[1], detail, received, at, usage
    ),
    answered | failed | silent,
    words,
    attachments,
    words,
    moments,
    moments,
    usages,
)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Hello, counts, words, st.lists(ids, max_size=5).map(tuple), words),
    st.builds(Welcome, specs, counts),
    st.builds(Status, st.sampled_from(RuntimeState), words, words, counts, counts),
    st.builds(TurnOffer, turns),
    st.builds(TurnReceived, ids),
    st.builds(TurnAnswer, ids, results),
    st.builds(TurnSettled, ids),
    st.builds(Piece, ids, st.binary(max_size=50)),
    st.builds(TurnAnswer, ids, results).map(lambda frame: headed(frame)[0]),
    st.builds(Log, st.lists(st.builds(LogLine, moments, st.sampled_from(["box", "runtime"]), words)).map(tuple)),
)
names = st.sampled_from(
    [
        "hello",
        "welcome",
        "status",
        "turn",
        "turn_received",
        "turn_result",
        "turn_settled",
        "log",
        "piece",
        "pieced",
        "newer",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)


@given(frames)
def test_round_trip(frame: Frame) -> None:
    text = encode(frame)
    assert text.isascii()
    assert decode(text) == frame
    assert decode(text.encode()) == frame


@given(st.text(max_size=200) | st.binary(max_size=200))
@example("[" * 100_000)
@example('{"type": "turn_received", "turn_id": ' + "9" * 5000 + "}")
@example("{}")
@example('"turn"')
@example('{"type": ["turn"]}')
@example(b"\xff\xfe{\x00")
def test_any_text_is_a_frame_or_refused(text: str | bytes) -> None:
    decoded(text)


@given(frames, st.data())
def test_a_frame_with_any_value_in_any_place_is_a_frame_or_refused(frame: Frame, data: st.DataObject) -> None:
    body = json.loads(encode(frame))
    place = body
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [value for value in (place.values() if isinstance(place, dict) else place) if value]
        inner = [value for value in inner if isinstance(value, dict | list)]
        if inner:
            place = data.draw(st.sampled_from(inner))
    if isinstance(place, dict):
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(anything)
    elif place:
        place[0] = data.draw(anything)
    got = decoded(json.dumps(body))
    if got is not None:
        assert decode(encode(got)) == got


@given(names, anything)
def test_any_body_under_any_type_is_a_frame_or_refused(kind: str, body: object) -> None:
    decoded(json.dumps({**(body if isinstance(body, dict) else {"turn": body}), "type": kind}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1", "1e300", '"5"', "true", "null"])
def test_numbers_out_of_range_are_refused(number: str) -> None:
    for text in (
        f'{{"type":"turn","turn":{{"id":"a","session":"s","text":"","deadline_seconds":{number}}}}}',
        f'{{"type":"status","state":"ready","memory_bytes":{number}}}',
        f'{{"type":"log","lines":[{{"at":{number},"source":"box","text":""}}]}}',
        f'{{"type":"turn_result","turn_id":"a","result":{{"outcome":"answered","received_at":{number}}}}}',
    ):
        with pytest.raises(FrameRefused):
            decode(text)


def test_what_a_database_refuses_never_comes_out() -> None:
    frame = TurnAnswer(
        "t\0\ud800", TurnResult(TurnOutcome.ANSWERED, "a\0b\udfffc", usage={"\0": "\ud800", "deep": {"n": [1, "\0"]}})
    )
    got = decode(encode(frame))
    assert isinstance(got, TurnAnswer)
    assert got.turn_id == "t\ufffd\ufffd"
    assert got.result.text == "a\ufffdb\ufffdc"
    assert got.result.usage == {"\ufffd": "\ufffd", "deep": {"n": [1, "\ufffd"]}}


def test_usage_is_plain_and_bounded() -> None:
    text = '{"type":"turn_result","turn_id":"a","result":{"outcome":"failed","usage":%s}}'
    got = decode(text % '{"a":1e999,"b":99999999999999999999,"c":{"d":{"e":{"f":1}}},"g":-2,"h":true}')
    assert isinstance(got, TurnAnswer)
    assert got.result.usage == {"a": None, "b": None, "c": {"d": {"e": None}}, "g": -2, "h": True}
    many = decode(text % json.dumps({str(number): number for number in range(1000)}))
    assert isinstance(many, TurnAnswer)
    assert len(many.result.usage) == 100
    with pytest.raises(FrameRefused):
        decode(text % "[1]")


@pytest.mark.parametrize("content", ["not base64!", "YQ", 5, None, "YQ==\n"])
def test_attachments_that_are_not_base64_are_refused(content: object) -> None:
    held = [{"filename": "a", "media_type": "b", "content": content}]
    with pytest.raises(FrameRefused):
        decode(
            json.dumps({"type": "turn_result", "turn_id": "a", "result": {"outcome": "answered", "attachments": held}})
        )


def test_long_things_are_cut_or_refused() -> None:
    answer = TurnAnswer("a", TurnResult(TurnOutcome.ANSWERED, "x" * (ANSWER_CHARS_MAX + 5)))
    got = decode(encode(answer))
    assert isinstance(got, TurnAnswer)
    assert len(got.result.text) == ANSWER_CHARS_MAX
    line = decode(encode(Log((LogLine(1.0, "runtime", "x" * (LOG_LINE_CHARS_MAX + 5)),))))
    assert isinstance(line, Log)
    assert len(line.lines[0].text) == LOG_LINE_CHARS_MAX
    with pytest.raises(FrameRefused):
        decode(encode(TurnReceived("x" * 201)))
    with pytest.raises(FrameRefused):
        decode(encode(TurnReceived("")))
    with pytest.raises(FrameRefused):
        too_many = (Attachment("a", "b", b""),) * (ATTACHMENTS_MAX + 1)
        decode(encode(replace(answer, result=TurnResult(TurnOutcome.ANSWERED, "", too_many))))


def test_a_newer_side_is_understood() -> None:
    assert decode('{"type": "turn_cancelled", "turn_id": "a"}') is None
    assert decode('{"type": "turn_settled", "turn_id": "a", "more": 1}') == TurnSettled("a")


def test_the_model_key_is_not_in_the_repr() -> None:
    spec = RuntimeSpec("echo", "ada", ModelAccess("openai-completions", "http://x", "sk-secret", "m"), 1)
    assert "sk-secret" not in repr(Welcome(spec))


def decoded(text: str | bytes) -> Frame | None:
    try:
        return decode(text)
    except FrameRefused:
        return None


@given(st.builds(TurnOffer, turns) | st.builds(TurnAnswer, ids, results))
def test_what_goes_in_pieces_comes_back_the_same(frame: TurnOffer | TurnAnswer) -> None:
    head, contents = headed(frame)
    blob = b"".join(piece.content for content in contents for piece in pieces("a", content))
    assert joined(head, blob) == frame
    with pytest.raises(FrameRefused):
        joined(head, blob + b"x")


def test_what_is_short_enough_for_a_frame_passes_its_bound_whatever_its_escapes() -> None:
    worst = "\U0001f600"
    answer = TurnAnswer("i" * 200, TurnResult(TurnOutcome.ANSWERED, worst * 8000, (), detail=worst * 4000))
    assert fits_a_frame(answer)
    assert len(encode(answer)) < 256 * 1024
    assert read_frame(encode(answer)) is not None
    status = Status(RuntimeState.READY, worst * 4000, worst * 100)
    assert read_frame(encode(status)) == status


@pytest.mark.parametrize("kind", ["hello", "status", "log", "turn_result", "turn_received", "piece", "newer"])
def test_a_frame_over_its_bound_is_refused_unparsed(kind: str) -> None:
    text = f'{{"type": "{kind}", ' + "[" * 300_000
    with pytest.raises(FrameTooLong):
        read_frame(text)
    with pytest.raises(FrameTooLong):
        read_frame(text.encode())


@pytest.mark.parametrize(
    "text", ['{"turn_id": "a", "type": "turn_received"}', ' {"type": "log"}', "", "[]", "\ufeff{}"]
)
def test_a_frame_begins_with_its_type(text: str) -> None:
    with pytest.raises(FrameRefused):
        read_frame(text)

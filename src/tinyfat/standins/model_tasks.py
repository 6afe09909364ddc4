"""What the stand-in does besides remembering: greetings are told from words, sums done, wishes for files seen. Pure."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

SUM_CHARS_MAX = 80
LOOKED_AT_CHARS_MAX = 10_000  # of a text, for a sum or for a wish for a file
DIGITS_MAX = 30  # of a number, and of a result
DEFAULT_FILE = "notes.txt"
CONTENT_CHARS_MAX = 20_000

_GREETINGS = (
    "hi|hello|hey|dear|hallo|hej|liebe[rs]?|moin|servus|salut|bonjour|hola|ciao|guten (?:morgen|tag|abend)|grüß dich|"
    "grüezi|good (?:morning|day|afternoon|evening)|greetings"
)
# Whom a greeting may name: words such as these, or names, which begin with a capital.
_NAMED = r"(?:there|again|moin|all|both|everybody|everyone|team|zusammen|alle|(?-i:[^\W\d_a-z]\w*(?:-\w+)*))"
_NO_NAME_WORDS = """
i my we our you your the a an it he she they this that what who when where why how can could please do is are was
ich mein meine meinen wir unser du dein das die der ein eine es wer wann wo warum wie kannst bitte ist
"""
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())
_GREETING = re.compile(
    rf"(?:{_GREETINGS})\b(,[ \t]+{_NAMED}(?=[ \t]*(?:[,.!]|$))|(?:[ \t]+{_NAMED}){{0,4}})", re.IGNORECASE
)
_AFTER_GREETING = re.compile(r"[ \t,.!:;–—-]*")
THANKS = re.compile(r"\b(?:thanks|thank you|thx|cheers|danke|merci|gracias)\b", re.IGNORECASE)

_SUM_WANTED = re.compile(
    r"\b(?:what(?:'s| is| are| do| does| would)|how much|how many|calculate|compute|work out|add|sum|multiply|divide|"
    r"subtract|was (?:ist|sind|ergibt|macht)|wie ?viel|rechne|berechne)\b|[=?]\s*$",
    re.IGNORECASE,
)
_WORDS_OF_SUMS = (
    (re.compile(r"\b(?:multiplied by|times|mal)\b", re.IGNORECASE), "*"),
    (re.compile(r"\b(?:divided by|geteilt durch|durch|over)\b", re.IGNORECASE), "/"),
    (re.compile(r"\bplus\b", re.IGNORECASE), "+"),
    (re.compile(r"\bminus\b", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\d)[ \t]*[x×·][ \t]*(?=[\d(])"), "*"),
    (re.compile("[÷:]"), "/"),
    (re.compile("[−–]"), "-"),
)
_VERBS_OF_SUMS = (  # "add 17 and 4"; the second number first where it is "subtract 4 from 17"
    (re.compile(r"\b(?:add|sum(?: up)?)\s+(?P<a>[\d.,]+\d|\d)\s+(?:and|to)\s+(?P<b>[\d.,]+\d|\d)", re.IGNORECASE), "+"),
    (re.compile(r"\bsubtract\s+(?P<b>[\d.,]+\d|\d)\s+from\s+(?P<a>[\d.,]+\d|\d)", re.IGNORECASE), "-"),
    (re.compile(r"\bmultiply\s+(?P<a>[\d.,]+\d|\d)\s+(?:by|with)\s+(?P<b>[\d.,]+\d|\d)", re.IGNORECASE), "*"),
    (re.compile(r"\bdivide\s+(?P<a>[\d.,]+\d|\d)\s+by\s+(?P<b>[\d.,]+\d|\d)", re.IGNORECASE), "/"),
)
_NUMBER = r"\d{1,30}(?:[.,]\d{1,30})?"
_SUM = re.compile(rf"[-+(]*{_NUMBER}[)]*(?:[ \t]*[-+*/][ \t]*[-+(]*{_NUMBER}[)]*)+")
_DATE = re.compile(r"\d{2,4}-\d\d?-\d\d?|\d+(?:/\d+)+")

_FILE_WANTED = re.compile(
    r"\b(?:write|save|put|make|create|send|attach|give|schreib\w*|speicher\w*|schick\w*|häng\w*|leg\w*|mach\w*)\b"
    r"[^\n]{0,200}?(?:\b(?:file|attachment|attached|datei|anhang)\b|\b[\w-]{1,60}\.(?:txt|md|csv)\b)",
    re.IGNORECASE,
)
_FILE_NAME = re.compile(r"\b([\w-]{1,60}\.(?:txt|md|csv))\b", re.IGNORECASE)
_QUOTED = re.compile('["“„«]([^"“”„«»]{1,2000})["”“»]')


@dataclass(frozen=True, slots=True)
class FileWanted:
    name: str
    content: str  # what stands in quotes in the request; else empty: what is known is meant


def after_greeting(sentence: str) -> str:
    """What a sentence says besides greeting somebody: "Hello Ada, my boat is red." -> "my boat is red."."""
    match = _GREETING.match(sentence)
    if match is None:
        return sentence
    end = match.start(1)
    for name in re.finditer(r"[ \t,]+[^\s,]+", match[1]):
        if name.group().strip(" \t,").lower() in _NO_NAMES:
            break
        end = match.start(1) + name.end()
    return sentence[_end_of(_AFTER_GREETING, sentence, end) :]


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start


def sum_in(sentence: str) -> str:
    """ "What is 12 + 30?" -> "12 + 30 = 42."; empty where no sum is asked for, or none can be done."""
    text = sentence[:LOOKED_AT_CHARS_MAX]
    if not _SUM_WANTED.search(text):
        return ""
    for verb, sign in _VERBS_OF_SUMS:
        text = verb.sub(rf"\g<a> {sign} \g<b>", text)
    for words, sign in _WORDS_OF_SUMS:
        text = words.sub(f" {sign} " if len(sign) == 1 and sign in "+-" else sign, text)
    match = _SUM.search(text)
    if match is None or len(match.group()) > SUM_CHARS_MAX or _DATE.fullmatch(match.group().strip()):
        return ""
    written = match.group().strip()
    try:
        result = _value(ast.parse(written.replace(",", "."), mode="eval").body)
    except ZeroDivisionError:
        return f"{written}: nothing can be divided by 0."
    except (SyntaxError, ValueError):
        return ""
    spaced = re.sub(r"(?<=[\d)])\s*([-+*/])\s*", r" \1 ", written)
    return f"{' '.join(spaced.split())} = {_shown(result)}."


def _value(node: ast.expr) -> Fraction:
    """Numbers, signs, brackets, + - * /: whatever else stands there is a ValueError."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(Decimal(str(number)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left) - _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
    raise ValueError("no sum")


def _shown(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number.numerator)
    with localcontext() as context:
        context.prec = DIGITS_MAX
        exact = Decimal(number.numerator) / Decimal(number.denominator)
    return f"{exact.normalize():f}" if Fraction(exact) == number else f"about {exact:.6g}"


def file_wanted(text: str) -> FileWanted | None:
    """The file a mail asks for; its name can only be one in the workspace itself."""
    text = text[:LOOKED_AT_CHARS_MAX]
    wanted = _FILE_WANTED.search(text)
    if wanted is None:
        return None
    name, quoted = _FILE_NAME.search(text, wanted.start()), _QUOTED.search(text, wanted.start())
    return FileWanted(name[1] if name else DEFAULT_FILE, quoted[1].strip() if quoted else "")

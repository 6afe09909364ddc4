"""As much of CSS as tells which text of a mail is not seen: style sheets, selectors, lengths, colours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SHEET_CHARS_MAX = 200_000  # of all style elements together
RULES_MAX = 2_000  # that say anything of what is seen
MATCHES_MAX = 100_000  # of rules against elements; then a rule applies wherever its last class, id or name stands
DECLARATIONS_MAX = 100
SELECTOR_PIECES_MAX = 20
ATTRIBUTE_CHARS_MAX = 500
SCREEN_PIXELS = 1_000  # the width of a window in which mail is read

_COMMENTS = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
_ESCAPE = re.compile(r"\\([0-9a-f]{1,6})\s?|\\(.)", re.IGNORECASE | re.DOTALL)
_COMPOUND = re.compile(r"[.#]?-?[_a-z*][\w-]*|\[[^\]]{1,200}\]|:[a-z-]+(?:\([.#]?[\w-]{1,100}\))?", re.IGNORECASE)
# Which of an element's states and places are looked at; a rule with another one is left out.
_PLACES = re.compile(r":(?:root|first-child|last-child|only-child|(?:not|is|where|matches|any)\([.#]?[\w-]{1,100}\))")
_ATTRIBUTE = re.compile(r"""\[\s*([\w-]+)\s*(?:([~^$*|]?)=\s*["']?(.*?)["']?\s*)?\]""")
_LENGTH = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))\s*(px|pt|pc|in|cm|mm|em|rem|ex|ch|vw|vh|%)?", re.IGNORECASE)
_PIXELS = {"": 1, "px": 1, "pt": 4 / 3, "pc": 16, "in": 96, "cm": 37.8, "mm": 3.78, "rem": 16, "vw": 10, "vh": 8}
_SEEN = re.compile(
    r"display|visibility|opacity|font|height|width|overflow|colou?r|background|position|left|top|right|bottom|indent"
    r"|mso-hide|clip|transform|margin|filter"
)
_NAMED = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "silver": (192, 192, 192),
    "snow": (255, 250, 250),
    "ivory": (255, 255, 240),
    "whitesmoke": (245, 245, 245),
    "navy": (0, 0, 128),
    "ghostwhite": (248, 248, 255),
    "floralwhite": (255, 250, 240),
    "maroon": (128, 0, 0),
    "aqua": (0, 255, 255),
}

# White as the newer notations say it (CSS Color 4).
_WHITE = re.compile(
    r"hwb\([^,\s]+[\s,]+100%|(?:ok)?l(?:ab|ch)\(\s*(?:100%|1\b|100\b)|color\(\s*[\w-]+\s+(?:1|100%)\s+(?:1|100%)\s+(?:1|100%)"
)
_BRACES = re.compile(r"[{}]")
_WIDTHS = re.compile(r"(min|max)-(?:device-)?width\s*:\s*([^)]{1,20})")
_DISPLAYS = re.compile(
    r"none|block|inline|flex|grid|table|list-item|contents|flow|ruby|run-in|inherit|initial|unset|revert|-(?:webkit|moz|ms)-"
)
_VISIBILITIES = ("visible", "hidden", "collapse", "inherit", "initial", "unset", "revert")
_MEASURED = ("font-size", "opacity", "height", "max-height", "width", "max-width", "text-indent", "left", "top")
_MEASURES = re.compile(
    r"(?:auto|none|normal|inherit|initial|unset|revert|calc|min|max|clamp|fit-content|var|(?:x{1,3}-)?(?:small|large)|medium)"
    r"(?:$|[\s(])|(?:min|max)-content$|smaller$|larger$"
)

Colour = tuple[int, int, int]
Properties = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Rule:
    compounds: tuple[tuple[str, ...], ...]  # the element's own last, its forebears' before it
    specificity: tuple[int, int, int, int]
    declarations: tuple[tuple[str, str, bool], ...]  # name, value, important


@dataclass(slots=True)
class StyleSheet:
    """The rules of a document, found by the class, id or name of the element they are for."""

    by_key: dict[str, list[_Rule]] = field(default_factory=dict)
    rules: int = 0
    matches_left: int = MATCHES_MAX
    merged: dict[str, Properties] = field(default_factory=dict)  # what all rules of a key say together

    def properties(self, element: Any) -> Properties | None:
        """What is said of this element itself, its style attribute included; None for nothing."""
        for name, value in element.items():
            if len(value) > ATTRIBUTE_CHARS_MAX and name != "style":
                element.set(name, value[:ATTRIBUTE_CHARS_MAX])
        if self.matches_left <= 0:
            return self._roughly(element)
        rules = self._rules_for(element) if self.by_key else []
        inline = element.get("style")
        if not rules and not inline:
            return None
        found: Properties = {}
        last: Properties = {}
        for rule in sorted(rules, key=lambda one: one.specificity):
            for name, value, important in rule.declarations:
                (last if important else found)[name] = value
        for name, value, important in declarations(inline or ""):
            (last if important else found)[name] = value
        return found | last

    def _rules_for(self, element: Any) -> list[_Rule]:
        return [rule for key in _keys(element) for rule in self.by_key.get(key, ()) if self._matches(rule, element)]

    def _roughly(self, element: Any) -> Properties | None:
        """For a document that is all rules: what might be hidden counts as hidden."""
        found: Properties = {}
        for key in _keys(element):
            if key in self.by_key and key not in self.merged:
                said = (one for rule in self.by_key[key] for one in rule.declarations)
                self.merged[key] = {name: value for name, value, _ in said}
            found |= self.merged.get(key, {})
        return found | {name: value for name, value, _ in declarations(element.get("style") or "")} or None

    def _matches(self, rule: _Rule, element: Any) -> bool:
        self.matches_left -= len(rule.compounds[-1])
        if not _is(element, rule.compounds[-1]):
            return False
        forebears = element.iterancestors()
        for compound in reversed(rule.compounds[:-1]):
            for forebear in forebears:
                self.matches_left -= 1
                if _is(forebear, compound):
                    break
            else:
                return False
        return True


def style_sheet(text: str) -> StyleSheet:
    """Rules under a media query with a condition are left out: they are for screens that the reader may not have."""
    sheet = StyleSheet()
    plain = _unescaped(_COMMENTS.sub("", text[:SHEET_CHARS_MAX])).lower().replace("<!--", "").replace("-->", "")
    for selectors, block in _blocks(plain):
        said = tuple(one for one in declarations(block) if _SEEN.search(one[0]))
        if not said:
            continue
        for selector in selectors.split(",")[:100]:
            _add(sheet, selector.strip(), said)
    return sheet


def declarations(block: str) -> list[tuple[str, str, bool]]:
    plain = _unescaped(_COMMENTS.sub("", block)).lower() if "\\" in block or "/*" in block else block.lower()
    found: list[tuple[str, str, bool]] = []
    for one in plain.split(";")[:DECLARATIONS_MAX]:
        name, colon, value = one.partition(":")
        bare = value.replace("! important", "!important").replace("!important", "").strip()
        if colon and _is_valid(name.strip(), bare, found):
            found.append((name.strip(), bare, "important" in value))
    return found


def _is_valid(name: str, value: str, before: list[tuple[str, str, bool]]) -> bool:
    """A value that is none leaves the one before in force (CSS Syntax 9): `display:none;display:so`."""
    if name == "display":
        return _DISPLAYS.match(value) is not None
    if name == "visibility":
        return value.startswith(_VISIBILITIES)
    if name in _MEASURED:
        return _LENGTH.fullmatch(value) is not None or _MEASURES.match(value) is not None
    if name == "color" and any(one[0] == "color" for one in before):
        return colour(value) is not None or "(" in value or value in ("inherit", "transparent", "currentcolor")
    return True


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while (brace := text.find("{", position)) >= 0:
        prelude = text[position:brace].rpartition(";")[2].strip()
        if prelude.startswith(("@media", "@supports", "@layer")) and _applies(prelude):
            position = brace + 1  # as if its rules stood alone; its own brace ends nothing
            continue
        end = _matching(text, brace) if prelude.startswith("@") else text.find("}", brace)
        end = len(text) if end < 0 else end
        if not prelude.startswith("@"):
            yield prelude.lstrip("} \t\r\n"), text[brace + 1 : end]
        position = end + 1


def _applies(prelude: str) -> bool:
    """Is the condition true of a common screen in the light? One that we do not know is, or it could hide anything."""
    if ("print" in prelude and "not" not in prelude) or "dark" in prelude:
        return False
    for side, width in _WIDTHS.findall(prelude):
        size = pixels(width) or 0.0
        if (side == "max" and size < SCREEN_PIXELS) or (side == "min" and size > SCREEN_PIXELS):
            return False
    return True


def _matching(text: str, brace: int) -> int:
    depth = 0
    for match in _BRACES.finditer(text, brace):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return -1


def _add(sheet: StyleSheet, selector: str, said: tuple[tuple[str, str, bool], ...]) -> None:
    if sheet.rules >= RULES_MAX or not selector or len(selector) > 500 or ":" in _PLACES.sub("", selector):
        return
    words = re.sub(r"[>+~](?![^\[]*\])", " ", selector).split()
    compounds = tuple(tuple(_COMPOUND.findall(word)) for word in words)
    if (
        not compounds
        or sum(map(len, compounds)) > SELECTOR_PIECES_MAX
        or any("".join(found) != word for found, word in zip(compounds, words, strict=True))
    ):
        return
    pieces = [piece for compound in compounds for piece in compound]
    ids, classes = sum(t[0] == "#" for t in pieces), sum(t[0] in ".[:" for t in pieces)
    rule = _Rule(compounds, (ids, classes, len(pieces) - ids - classes, sheet.rules), said)
    last = sorted(compounds[-1], key=lambda piece: "#.".find(piece[0]) % 9)
    sheet.by_key.setdefault("*" if last[0][0] in "[:" else last[0], []).append(rule)
    sheet.rules += 1


def _is(element: Any, compound: tuple[str, ...]) -> bool:
    return all(_has(element, piece) for piece in compound)


def _has(element: Any, piece: str) -> bool:
    if piece[0] == ".":
        return piece[1:] in _classes(element)
    if piece[0] == "#":
        return str(element.get("id") or "").lower() == piece[1:]
    if piece[0] == ":":
        return _is_placed(element, piece)
    if piece[0] != "[":
        return piece in ("*", str(element.tag))
    match = _ATTRIBUTE.fullmatch(piece)
    value = element.get(match[1]) if match else None
    if match is None or value is None:
        return False
    if match[3] is None:
        return True
    folded, wanted = str(value).lower(), match[3]
    tests = {"": folded == wanted, "^": folded.startswith(wanted), "$": folded.endswith(wanted), "*": wanted in folded}
    return tests.get(match[2], wanted in folded.split())


def _is_placed(element: Any, piece: str) -> bool:
    name, _, inner = piece[1:].rstrip(")").partition("(")
    if inner:
        return _has(element, inner) is not (name == "not")
    if name == "root":
        return element.getparent() is None
    first, last = element.getprevious() is None, element.getnext() is None
    return {"first-child": first, "last-child": last}.get(name, first and last)


def _keys(element: Any) -> list[str]:
    keys = [str(element.tag), "*", *(f".{one}" for one in dict.fromkeys(_classes(element)[:50]))]
    return [*keys, f"#{identity.lower()}"] if (identity := element.get("id")) else keys


def _classes(element: Any) -> list[str]:
    return str(element.get("class") or "").lower().split()


def _unescaped(text: str) -> str:
    """CSS Syntax 4.3.7: `\\6e one` is `none`."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda m: chr(min(int(m[1], 16), 0x10FFFF)) if m[1] else m[2], text)


def pixels(value: str, em: float = 16.0) -> float | None:
    """The first length in `value`; None where there is none. `em`: what a relative one is relative to."""
    match = _LENGTH.match(value.strip().removeprefix("calc(").strip())
    if match is None:
        return None
    unit = (match[2] or "").lower()
    scale = {"em": em, "%": em / 100, "ex": em / 2, "ch": em / 2}.get(unit) or _PIXELS[unit]
    return float(match[1]) * scale


def colour(value: str) -> Colour | None:
    """The colour a value begins with; None where it names none that we know. A transparent one has no place here."""
    text = value.strip().lower()
    if match := re.match(r"#([0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3,4})\b", text):
        digits = match[1]
        pairs = [c * 2 for c in digits[:3]] if len(digits) < 6 else [digits[0:2], digits[2:4], digits[4:6]]
        return (int(pairs[0], 16), int(pairs[1], 16), int(pairs[2], 16))
    if match := re.match(r"rgba?\(\s*([\d.]+)(%?)[\s,]+([\d.]+)%?[\s,]+([\d.]+)%?", text):
        scale = 2.55 if match[2] else 1
        red, green, blue = (min(255, int(float(match[n] or 0) * scale)) for n in (1, 3, 4))
        return (red, green, blue)
    if match := re.match(r"hsla?\([^,\s]+[\s,]+[\d.]+%[\s,]+(100|0)%", text):
        return (255, 255, 255) if match[1] == "100" else (0, 0, 0)
    if match := _WHITE.match(text):
        return (255, 255, 255)
    return _NAMED.get(re.split(r"[\s;,]", text, maxsplit=1)[0])


def is_transparent(value: str) -> bool:
    match = re.match(r"\s*(?:rgba|hsla)?\(?[^)]*[,/]\s*(0?\.?0\d?)\s*%?\s*\)", value)
    return (
        value.strip() == "transparent"
        or bool(match and "(" in value and float(match[1] or 0) <= 0.05)
        or (bool(re.fullmatch(r"#(?:[0-9a-f]{3}0|[0-9a-f]{6}0\d?)", value.strip())))
    )

"""Text that no person sees is not shown to the model either: that is how instructions are smuggled to one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from tinyfat.domain.mail.html_styles import (
    Colour,
    Properties,
    colour,
    is_transparent,
    pixels,
    style_sheet,
)

SMALL_PIXELS = 2.0  # and less is not read
FAR_PIXELS = 400  # beyond an edge
OPACITY_MIN = 0.05
NEAR = 12  # colours that differ by no more in any channel are the same to the eye
IMAGES_SHOWN_MAX = 20  # of a mail that is nothing else
IMAGE_ADDRESS_CHARS_MAX = 500
_IMAGES = ("img", "amp-img", "input", "area")
_KEEPS_ITS_SIZE = {"xx-small": 9.0, "x-small": 10.0, "small": 13.0, "medium": 16.0, "large": 18.0, "larger": 19.0}
_FONT_SIZE = re.compile(r"(?:^|\s)([\d.]+(?:px|pt|em|rem|%)?)\s*(?:/|\s|$)")
_UNSHOWN_TAGS = ("template", "datalist", "noframes", "noembed", "canvas", "audio", "video", "iframe", "object")
_SIZES = ("max-height", "height", "max-width", "width")
_EDGES = ("left", "top", "right", "bottom")
_CLIPPED = re.compile(r"rect\( ?([01]) \1 \1 \1 ?\)|inset\( ?(?:50|[6-9]\d|100)%|circle\( ?0")
_MOVED = re.compile(r"scale\(0(?:\.0\d*)?[,)]|translate[xy]?\(\s*-\s*(?:\d{4,}|[5-9]\d\d)")
_MAY_HIDE = re.compile(r"style|hidden|color|dialog|" + "|".join(_UNSHOWN_TAGS), re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Look:
    """What text inherits."""

    size: float = 16.0  # pixels
    text: Colour | None = (0, 0, 0)  # None: not known
    ground: Colour | None = (255, 255, 255)  # None: an image, or not known
    seen: bool = True  # visibility

    def shows(self) -> bool:
        if not self.seen or self.size <= SMALL_PIXELS:
            return False
        if self.text is None or self.ground is None:
            return True
        return any(abs(a - b) > NEAR for a, b in zip(self.text, self.ground, strict=True))


def drop_hidden(tree: Any, html: str) -> None:
    """Take out of the tree what is not seen: whole elements, and text alone where what is inside may be seen.

    What a screen reader is told to leave out (aria-hidden) goes too. Alternative texts stand where images are.
    """
    if not _MAY_HIDE.search(html):
        for image in tree.iter(*_IMAGES):
            _alternative_text(image)
        return
    sheet = style_sheet("\n".join(str(style.text_content()) for style in tree.iter("style")))
    gone: list[Any] = []  # taken out at the end: a rule may ask for the first or last child
    stack: list[tuple[Any, _Look]] = [(tree, _Look())]
    while stack:
        element, inherited = stack.pop()
        if not isinstance(element.tag, str):
            continue
        properties = _with_attributes(element, sheet.properties(element))
        if _is_marked_hidden(element) or (properties and _is_gone(properties)):
            gone.append(element)
            continue
        look = _look(inherited, properties) if properties else inherited
        if element.tag in _IMAGES and look.seen:
            _alternative_text(element)
        if not look.shows():
            element.text = None
            for child in element:
                child.tail = None
        stack.extend((child, look) for child in element)
    for element in gone:
        _remove(element)


def _is_marked_hidden(element: Any) -> bool:
    if element.tag in _UNSHOWN_TAGS or (element.tag == "dialog" and element.get("open") is None):
        return True
    return element.get("hidden") is not None or str(element.get("aria-hidden") or "").strip().lower() == "true"


def _with_attributes(element: Any, properties: Properties | None) -> Properties | None:
    """HTML's own attributes for what CSS says otherwise."""
    given = {"color": element.get("color") or element.get("text"), "background-color": element.get("bgcolor")}
    said = {name: value.lower() for name, value in given.items() if value}
    if element.get("background"):
        said["background-image"] = "url()"
    if element.tag in ("a", "body", "font", "table", "td", "th", "tr", "tbody", "basefont") and said:
        return said | (properties or {})
    if element.tag == "a" and not (properties and "color" in properties):
        return {"color": "blue"} | (properties or {})
    return properties


def _is_gone(properties: Properties) -> bool:
    get = properties.get
    opacity = pixels(get("opacity", "1"), 1.0)
    return (
        get("display", "").startswith("none")
        or get("mso-hide") == "all"
        or get("content-visibility") == "hidden"
        or (opacity is not None and opacity <= OPACITY_MIN)
        or _is_shut(properties)
        or _is_far_away(properties)
        or re.search(r"opacity\s*[=(:]\s*0(?:%|\b)(?!\.)", get("filter", "")) is not None
    )


def _is_shut(properties: Properties) -> bool:
    """A box of no height or width that hides what flows over, or one that is clipped away."""
    sizes = {name: pixels(properties[name]) for name in _SIZES if name in properties}
    shut = any(size is not None and size <= SMALL_PIXELS for size in sizes.values())
    overflow = "".join(properties.get(name, "") for name in ("overflow", "overflow-x", "overflow-y"))
    clip = re.sub(r"px|[\s,]+", " ", properties.get("clip", "") + properties.get("clip-path", ""))
    clipped = _CLIPPED.search(re.sub(r"\s+", " ", clip)) is not None
    cut = any(word in overflow for word in ("hidden", "clip", "auto", "scroll"))
    return (shut and cut) or sizes.get("max-height") == 0 or clipped


def _is_far_away(properties: Properties) -> bool:
    placed = properties.get("position", "") in ("absolute", "fixed", "relative")
    names = (*(_EDGES if placed else ()), "margin-left", "margin-top", "margin", "text-indent")
    away = [size for name in names if name in properties and (size := pixels(properties[name])) is not None]
    far = any(size <= -FAR_PIXELS or (placed and size >= 10 * FAR_PIXELS) for size in away)
    return far or _MOVED.search(properties.get("transform", "")) is not None


def _look(inherited: _Look, properties: Properties) -> _Look:
    return replace(
        inherited,
        size=_size(inherited.size, properties),
        text=_text_colour(inherited, properties),
        ground=_ground(inherited.ground, properties),
        seen=_visibility(inherited.seen, properties),
    )


def _size(inherited: float, properties: Properties) -> float:
    value = properties.get("font-size", "")
    if not value and (match := _FONT_SIZE.search(properties.get("font", ""))):
        value = match[1]
    if value in _KEEPS_ITS_SIZE:
        return _KEEPS_ITS_SIZE[value]
    size = pixels(value, inherited) if value else None
    return inherited if size is None else size


def _text_colour(inherited: _Look, properties: Properties) -> Colour | None:
    value = properties.get("-webkit-text-fill-color") or properties.get("color", "")
    if not value or value.startswith(("inherit", "currentcolor", "unset")):
        return inherited.text
    if is_transparent(value):
        return _ground(inherited.ground, properties)
    return colour(value)


def _ground(inherited: Colour | None, properties: Properties) -> Colour | None:
    image = properties.get("background-image", "") + properties.get("background", "")
    if "url(" in image or "gradient(" in image:
        return None
    value = properties.get("background-color") or properties.get("background", "")
    if not value or is_transparent(value) or value.startswith(("none", "inherit", "initial", "unset")):
        return inherited
    return colour(value)


def _visibility(inherited: bool, properties: Properties) -> bool:
    value = properties.get("visibility", "")
    if value.startswith(("hidden", "collapse")):
        return False
    return True if value.startswith("visible") else inherited


def _alternative_text(image: Any) -> None:
    """Of an image, a button that is one, or a place in one that leads somewhere."""
    if image.tag == "input" and str(image.get("type") or "").lower() not in ("image", "submit", "button"):
        return
    words = next((found for name in ("alt", "title", "value") if (found := image.get(name))), "")
    if text := " ".join(str(words or "").split()):
        leads = str(image.get("href") or "") if image.tag == "area" else ""
        image.tail = f"[{text}]{f'({leads})' if leads else ''}{image.tail or ''}"


def images_elsewhere(tree: Any) -> list[str]:
    """For a mail that says nothing in words: where its images lie, and where they lead."""
    found: dict[str, None] = {}
    for element in tree.iter("img", "a", "area"):
        address = str(element.get("src" if element.tag == "img" else "href") or "").strip()
        if address.lower().startswith(("https://", "http://", "mailto:")):
            kind = "Image" if element.tag == "img" else "Link"
            found[f"[{kind}: {address[:IMAGE_ADDRESS_CHARS_MAX]}]"] = None
        if len(found) >= IMAGES_SHOWN_MAX:
            break
    return list(found)


def _remove(element: Any) -> None:
    """With all that is in it, but for the text behind it."""
    parent = element.getparent()
    if parent is None:
        element.text = None
        for child in list(element):
            element.remove(child)
        return
    if element.tail:
        before = element.getprevious()
        if before is None:
            parent.text = (parent.text or "") + element.tail
        else:
            before.tail = (before.tail or "") + element.tail
    parent.remove(element)

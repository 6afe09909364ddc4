"""The parts of a mail as their sender meant them: what is wrapped or coded in older ways is opened, and still there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tinyfat.domain.mail.charsets import decode, is_blank, is_utf8
from tinyfat.domain.mail.encoded_files import EncodedFile, encoded_files
from tinyfat.domain.mail.headers import Headers
from tinyfat.domain.mail.mime import Part, read_structure
from tinyfat.domain.mail.rtf_text import rtf_text
from tinyfat.domain.mail.signed_content import is_enveloped, signed_content
from tinyfat.domain.mail.tnef import Tnef, read_tnef

WRAPPINGS_MAX = 3  # signatures in one another (RFC 2634 1.1: a triple-wrapped mail has two)
TEXT_TYPES = ("text/plain", "text/html", "text/enriched")
ADDRESS_CHARS_MAX = 1_000
ENCRYPTED = b"[This mail is encrypted: its text cannot be read here. What came is attached.]"
OTHER_VERSIONS = ("text/x-amp-html", "text/watch-html")  # of a text, for programs that show more, or less
# Files, though their type is a text's.
_FILES = frozenset(
    f"text/{name}"
    for name in ("calendar", "vcard", "x-vcard", "directory", "csv", "tab-separated-values", "rtf", "css", "xml")
) | {"text/rfc822-headers", "text/javascript"}
_LOOKED_AT = 65_536  # bytes, to tell text from what is none
_PLAIN_BYTES = bytes((9, 10, 12, 13, *range(0x20, 0x7F)))
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_TNEF_TYPES = ("application/ms-tnef", "application/vnd.ms-tnef")
_SIGNED_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")


@dataclass(frozen=True, slots=True)
class _Opening:
    wrappings: int  # signatures that may still be opened
    with_text: bool  # the mail has no text of its own


def as_meant(root: Part) -> Part:
    """The tree with what is wrapped in it opened.

    Text that is the message, or its only text, is text whatever its name and type. The text before the first part
    counts where there is no other.
    """
    root = _whole(root)
    packed = any(is_tnef(leaf) for leaf in root.leaves())
    meant = _part(root, _Opening(WRAPPINGS_MAX, with_text=not (packed and _says_something(root))))
    if _has_text(meant):
        return meant
    for likely in (_is_alternative_text, _is_only_text, _is_other_version):
        if chosen := likely(meant):
            return _replaced(meant, chosen)
    if any(_is_encrypted(leaf) for leaf in meant.leaves()):
        return Part(meant.headers, "multipart/mixed", {}, "", {}, b"", (text_part(ENCRYPTED), meant))
    if meant.children and not is_blank(meant.preamble.decode("utf-8", "replace")):
        return replace(meant, children=(text_part(meant.preamble), *meant.children))
    return meant


def _has_text(tree: Part) -> bool:
    return any(leaf.media_type in TEXT_TYPES and not is_named(leaf) for leaf in tree.leaves())


def _says_something(tree: Part) -> bool:
    texts = (leaf for leaf in tree.leaves() if leaf.media_type in TEXT_TYPES and not is_named(leaf))
    return any(not is_blank(leaf.content()[:_LOOKED_AT].decode("utf-8", "replace")) for leaf in texts)


def _is_alternative_text(tree: Part) -> list[Part]:
    """The versions of a text are one, though each has a file's name."""
    stack, found = [tree], list[Part]()
    while stack:
        part = stack.pop()
        stack.extend(part.children)
        if part.media_type == "multipart/alternative":
            found += [child for child in part.children if child.media_type in TEXT_TYPES]
    return found


def _is_only_text(tree: Part) -> list[Part]:
    """One plain text, or one HTML, that is not put there as a file."""
    leaves = list(tree.leaves())
    for media_type in TEXT_TYPES:
        texts = [leaf for leaf in leaves if leaf.media_type == media_type]
        if len(texts) == 1 and texts[0].disposition != "attachment":
            return texts
    return []


def _is_other_version(tree: Part) -> list[Part]:
    """A version for other programs, where it is the only one there is."""
    return [leaf for leaf in tree.leaves() if leaf.media_type in OTHER_VERSIONS and not is_named(leaf)][:1]


def _whole(root: Part) -> Part:
    """A message that is one part: text, unless it is plainly something else."""
    if root.children:
        return root
    if root.media_type.startswith("text/"):
        known = _known_type(root)
        return replace(known, is_text=True) if known.media_type in TEXT_TYPES else known
    known_kind = root.media_type.startswith(("message/", "multipart/", "image/", "audio/", "video/", "font/"))
    if is_named(root) or (known_kind and root.media_type != "message/plain") or root.media_type in _SIGNED_TYPES:
        return root
    content = root.content()
    if is_blank(content[:_LOOKED_AT].decode("latin-1")) or not _is_plainly_text(content):
        return root
    return replace(root, media_type="text/html" if "html" in root.media_type else "text/plain", is_text=True)


def _is_plainly_text(content: bytes) -> bool:
    """No control characters, and UTF-8 or nearly ASCII."""
    sample = content[:_LOOKED_AT]
    odd = len(sample.translate(None, _PLAIN_BYTES))
    return not _CONTROLS.search(sample) and (odd * 5 <= len(sample) or is_utf8(content))


def _known_type(part: Part) -> Part:
    """Text of a type that nobody knows is plain (RFC 2046 4.1.4); a file of one is what it says."""
    if is_named(part) or not part.media_type.startswith(("text/", "application/xhtml")) or part.media_type in _FILES:
        return part
    if part.media_type in TEXT_TYPES or part.media_type in OTHER_VERSIONS:
        return part
    if "html" in part.media_type:
        return replace(part, media_type="text/html")
    return replace(part, media_type="text/enriched" if part.media_type == "text/richtext" else "text/plain")


def is_named(part: Part) -> bool:
    """It was attached, or has a file's name, and is not the text all the same."""
    named = "filename" in part.disposition_parameters or "name" in part.parameters
    return (part.disposition == "attachment" or named) and not part.is_text


def text_part(text: bytes, like: Part | None = None) -> Part:
    """A text to be read in place, in UTF-8, or with the charset and form of another whose encoding is undone."""
    if like is None:
        return Part(Headers(), "text/plain", {"charset": "utf-8"}, "", {}, text, (), is_text=True)
    return replace(like, headers=Headers(), body=text, is_text=True)


def _part(part: Part, opening: _Opening) -> Part:
    if part.children:
        children = tuple(_part(child, opening) for child in part.children)
        return part if children == part.children else replace(part, children=children)
    if part.media_type == "message/external-body":
        return text_part(_where_it_lies(part).encode("utf-8", "replace"))
    if is_tnef(part) and (packed := read_tnef(part.content())) is not None:
        return _unpacked(part, packed, opening.with_text)
    if opening.wrappings and _may_be_signed(part) and (inner := signed_content(part.content())) is not None:
        return _part(_whole(read_structure(inner).root), replace(opening, wrappings=opening.wrappings - 1))
    part = _known_type(part)
    if part.media_type == "text/plain" and not is_named(part):
        return _with_files(part)
    return part


def is_tnef(part: Part) -> bool:
    """Outlook's own packing: winmail.dat."""
    name = (part.disposition_parameters.get("filename") or part.parameters.get("name") or "").lower()
    return part.media_type in _TNEF_TYPES or (part.media_type == "application/octet-stream" and name == "winmail.dat")


def _unpacked(part: Part, packed: Tnef, with_text: bool) -> Part:
    """Its files, and its text where the mail has no other. One that was cut is kept beside them."""
    children = []
    if with_text:
        plain = packed.text if not is_blank(packed.text) or packed.html else rtf_text(packed.rtf)
        html = packed.html.encode("utf-8", "replace") if is_blank(plain) else b""
        text = text_part(html or plain.encode("utf-8", "replace"))
        children.append(replace(text, media_type="text/html") if html else text)
    children += [_attached(one.media_type, one.name, one.content) for one in packed.files]
    children += [] if packed.whole else [part]
    return Part(part.headers, "multipart/mixed", {}, "", {}, b"", tuple(children) or (text_part(b""),))


def _is_encrypted(part: Part) -> bool:
    """RFC 8551 3.3, RFC 3156 4: nobody here has the key."""
    if part.media_type in _SIGNED_TYPES:
        return "enveloped" in part.parameters.get("smime-type", "").lower() or is_enveloped(part.content())
    return part.media_type == "application/pgp-encrypted"


def _may_be_signed(part: Part) -> bool:
    name = (part.disposition_parameters.get("filename") or part.parameters.get("name") or "").lower()
    named = part.media_type == "application/octet-stream" and name.endswith(".p7m")
    kind = part.parameters.get("smime-type", "signed-data").lower()
    return kind == "signed-data" and (named or part.media_type in _SIGNED_TYPES)


def _with_files(part: Part) -> Part:
    """Files inside the text become parts of their own."""
    if b"begin" not in part.body:
        return part
    found = encoded_files(part.content())
    if not found.files:
        return part
    charset = part.parameters.get("charset", "")
    children = (text_part(found.rest, part), *(_file(one, charset) for one in found.files))
    return Part(part.headers, "multipart/mixed", {}, "", {}, b"", children)


def _file(one: EncodedFile, charset: str) -> Part:
    return _attached("application/octet-stream", decode(one.name, charset), one.content)


def _attached(media_type: str, name: str, content: bytes) -> Part:
    return Part(Headers(), media_type, {}, "attachment", {"filename": name}, content, ())


def _where_it_lies(part: Part) -> str:
    """RFC 2046 5.2.3: a part that is not in the mail."""
    given = {name: value.strip()[:ADDRESS_CHARS_MAX] for name, value in part.parameters.items()}
    address = given.pop("url", "").replace(" ", "")  # RFC 2017 3: it may be folded anywhere
    more = ", ".join(f"{name} {value}" for name, value in sorted(given.items()) if value)
    where = f" {address}" if address else ""
    return f"[A part of this mail is not in it, but lies elsewhere:{where}{f' ({more})' if more else ''}]"


def _replaced(tree: Part, texts: list[Part]) -> Part:
    """With these leaves as texts to be read in place."""
    if any(tree is one for one in texts):
        known = "text/html" if tree.media_type in OTHER_VERSIONS else tree.media_type
        return replace(tree, media_type=known, is_text=True)
    if not tree.children:
        return tree
    return replace(tree, children=tuple(_replaced(child, texts) for child in tree.children))

"""The parts of a mail as their sender meant them: what is wrapped or coded in older ways is opened, and still there."""

from __future__ import annotations

from dataclasses import replace

from tinyfat.domain.mail.charsets import is_blank
from tinyfat.domain.mail.encoded_files import EncodedFile, encoded_files
from tinyfat.domain.mail.headers import Headers
from tinyfat.domain.mail.mime import Part, read_structure
from tinyfat.domain.mail.signed_content import signed_content

WRAPPINGS_MAX = 3  # signatures in one another (RFC 2634 1.1: a triple-wrapped mail has two)
TEXT_TYPES = ("text/plain", "text/html", "text/enriched")
ADDRESS_CHARS_MAX = 1_000
ENCRYPTED = b"[This mail is encrypted: its text cannot be read here. What came is attached.]"
_SIGNED_TYPES = ("application/pkcs7-mime", "application/x-pkcs7-mime")


def as_meant(root: Part) -> Part:
    """The tree with what is wrapped in it opened.

    Text that is the message, or its only text, is text whatever its name. The text before the first part counts where
    there is no other.
    """
    if not root.children and root.media_type in TEXT_TYPES:
        root = replace(root, is_text=True)
    meant = _part(root, WRAPPINGS_MAX)
    leaves = list(meant.leaves())
    if any(leaf.media_type in TEXT_TYPES and not is_named(leaf) for leaf in leaves):
        return meant
    texts = [leaf for leaf in leaves if leaf.media_type == "text/plain"]
    if len(texts) == 1 and texts[0].disposition != "attachment":
        return _replaced(meant, texts[0], replace(texts[0], is_text=True))
    if any(_is_encrypted(leaf) for leaf in leaves):
        return Part(meant.headers, "multipart/mixed", {}, "", {}, b"", (text_part(ENCRYPTED), meant))
    if meant.children and not is_blank(meant.preamble.decode("utf-8", "replace")):
        return replace(meant, children=(text_part(meant.preamble), *meant.children))
    return meant


def is_named(part: Part) -> bool:
    """It was attached, or has a file's name, and is not the text all the same."""
    named = "filename" in part.disposition_parameters or "name" in part.parameters
    return (part.disposition == "attachment" or named) and not part.is_text


def text_part(text: bytes, like: Part | None = None) -> Part:
    """A text to be read in place, in UTF-8, or with the charset and form of another whose encoding is undone."""
    if like is None:
        return Part(Headers(), "text/plain", {"charset": "utf-8"}, "", {}, text, (), is_text=True)
    return replace(like, headers=Headers(), body=text, is_text=True)


def _part(part: Part, wrappings: int) -> Part:
    if part.children:
        children = tuple(_part(child, wrappings) for child in part.children)
        return part if children == part.children else replace(part, children=children)
    if part.media_type == "message/external-body":
        return text_part(_where_it_lies(part).encode("utf-8", "replace"))
    if wrappings and _may_be_signed(part) and (inner := signed_content(part.content())) is not None:
        opened = read_structure(inner).root
        if not opened.children and opened.media_type in TEXT_TYPES:
            opened = replace(opened, is_text=True)
        return _part(opened, wrappings - 1)
    if part.media_type == "text/plain" and not is_named(part):
        return _with_files(part)
    return part


def _is_encrypted(part: Part) -> bool:
    """RFC 8551 3.3, RFC 3156 4: nobody here has the key."""
    enveloped = part.media_type in _SIGNED_TYPES and "enveloped" in part.parameters.get("smime-type", "").lower()
    return enveloped or part.media_type == "application/pgp-encrypted"


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
    children = (text_part(found.rest, part), *(_file(one) for one in found.files))
    return Part(part.headers, "multipart/mixed", {}, "", {}, b"", children)


def _file(one: EncodedFile) -> Part:
    name = {"filename": one.name.decode("utf-8", "replace")}
    return Part(Headers(), "application/octet-stream", {}, "attachment", name, one.content, ())


def _where_it_lies(part: Part) -> str:
    """RFC 2046 5.2.3: a part that is not in the mail."""
    given = {name: value.strip()[:ADDRESS_CHARS_MAX] for name, value in part.parameters.items()}
    address = given.pop("url", "").replace(" ", "")  # RFC 2017 3: it may be folded anywhere
    more = ", ".join(f"{name} {value}" for name, value in sorted(given.items()) if value)
    where = f" {address}" if address else ""
    return f"[A part of this mail is not in it, but lies elsewhere:{where}{f' ({more})' if more else ''}]"


def _replaced(tree: Part, old: Part, new: Part) -> Part:
    if tree is old:
        return new
    if not tree.children:
        return tree
    return replace(tree, children=tuple(_replaced(child, old, new) for child in tree.children))

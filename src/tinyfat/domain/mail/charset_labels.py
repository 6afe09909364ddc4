"""Which codec a charset's label means: the WHATWG Encoding Standard's labels, and those that only mail has."""

from __future__ import annotations

import re
from encodings.aliases import aliases
from functools import lru_cache

LABEL_CHARS_MAX = 60

# Charsets mail is written in. Python knows codecs that are none (zip, idna, punycode: slow or worse); they are unknown
# here, and so are names it has never seen: it would keep each one for ever.
_CODECS = re.compile(
    r"ascii|utf_(?:7|8|8_sig|16|16_le|16_be|32|32_le|32_be)|latin_1|iso8859_\d+|cp\d+|koi8_[rut]|mac_\w+|tis_620|hp_roman8"
    r"|gb2312|gbk|gb18030|hz|big5|big5hkscs|shift_jis\w*|euc_\w+|iso2022_\w+|johab|ptcp154|kz1048"
)
# What senders mean by a codec's own name, where that is more than it says (Encoding 4.2): a superset each.
_MEANT = {
    "latin_1": "cp1252",
    "iso8859_1": "cp1252",
    "iso8859_9": "cp1254",
    "iso8859_11": "cp874",
    "tis_620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "cp936": "gb18030",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "utf_8_sig": "utf_8",
    "iso2022_jp_1": "iso2022_jp",
    "iso2022_jp_ext": "iso2022_jp",
}
# Labels that Python does not know under these names.
_LABELS = {
    "utf_8": "unicode11utf8 unicode20utf8 x_unicode20utf8 unicode_1_1_utf_8 utf8mb4 utf_8_mac",
    "utf_7": "unicode_1_1_utf_7 unicode_2_0_utf_7 x_unicode_2_0_utf_7 csutf7",
    "utf_16_le": "csunicode iso_10646_ucs_2 ucs_2 unicode unicodefeff",
    "utf_16_be": "unicodefffe",
    "cp866": "866 csibm866",
    "iso8859_2": "iso88592 iso_ir_101 csisolatin2 l2",
    "iso8859_3": "iso88593 iso_ir_109 csisolatin3 l3",
    "iso8859_4": "iso88594 iso_ir_110 csisolatin4 l4",
    "iso8859_5": "iso88595 iso_ir_144 csisolatincyrillic cyrillic",
    "iso8859_6": "iso88596 iso_8859_6_e iso_8859_6_i csiso88596e csiso88596i iso_ir_127 asmo_708 ecma_114"
    " csisolatinarabic",
    "iso8859_7": "iso88597 iso_ir_126 csisolatingreek ecma_118 elot_928 greek8 sun_eu_greek greek",
    "iso8859_8": "iso88598 iso_8859_8_e iso_8859_8_i csiso88598e csiso88598i iso_ir_138 csisolatinhebrew visual"
    " logical",
    "iso8859_10": "iso885910 iso_ir_157 csisolatin6 l6",
    "iso8859_13": "iso885913",
    "iso8859_14": "iso885914",
    "iso8859_15": "iso885915 csisolatin9 l9 latin9 latin_9",
    "iso8859_16": "iso885916",
    "koi8_r": "koi koi8 koi8r cskoi8r",
    "koi8_u": "koi8u koi8_ru koi8ru cskoi8u",
    "mac_roman": "macintosh csmacintosh mac x_mac_roman",
    "mac_cyrillic": "x_mac_cyrillic x_mac_ukrainian",
    "mac_latin2": "x_mac_ce x_mac_centraleurroman",
    "mac_greek": "x_mac_greek",
    "mac_turkish": "x_mac_turkish",
    "cp874": "dos_874 iso885911 iso_8859_11 windows_874 x_windows_874 tis620",
    "cp1250": "x_cp1250 win1250 win_1250",
    "cp1251": "x_cp1251 win1251 win_1251",
    "cp1252": "x_cp1252 win1252 ansi x_ansi csisolatin1 l1 iso88591 iso_ir_100 x_user_defined",
    "cp1253": "x_cp1253",
    "cp1254": "x_cp1254 csisolatin5 l5 iso88599 iso_ir_148",
    "cp1255": "x_cp1255",
    "cp1256": "x_cp1256",
    "cp1257": "x_cp1257",
    "cp1258": "x_cp1258",
    "gb18030": "x_gbk chinese csgb2312 csiso58gb231280 gb_2312 gb_2312_80 iso_ir_58 cp936 windows_936 gb_18030",
    "hz": "hz_gb_2312",
    "big5hkscs": "big5 cn_big5 csbig5 x_x_big5 x_big5 big5_hkscs",
    "cp950": "windows_950",
    "euc_jp": "x_euc_jp cseucpkdfmtjapanese eucjp_ms x_eucjp x_euc",
    "iso2022_jp": "csiso2022jp cp50220 cp50221 iso_2022_jp_ms x_iso_2022_jp",
    "iso2022_kr": "csiso2022kr",
    "cp932": "csshiftjis ms932 ms_kanji shift_jis sjis windows_31j x_sjis cswindows31j x_ms_cp932 windows_932"
    " shift_jis_ms",
    "cp949": "cseuckr csksc56011987 euc_kr iso_ir_149 korean ks_c_5601_1987 ks_c_5601_1989 ksc5601 ksc_5601"
    " windows_949 uhc",
    "johab": "ms1361 cp1361",
}
# Codecs that have no alias, and so are not in Python's table.
_BARE = (
    *("koi8_r", "koi8_u", "koi8_t", "mac_croatian", "mac_cyrillic", "mac_farsi", "mac_arabic", "mac_romanian"),
    *("cp720", "cp737", "cp856", "cp874", "cp1006", "cp1125", "kz1048", "ptcp154"),
)


_INSIDE = re.compile(
    r"(?:utf_?(?:8|16)|(?:iso_?)?8859_\d+|windows_?\d{3,4}|cp_?\d{3,4}|koi8_[ru]|iso_2022_jp|gb(?:k|2312|18030))(?!\d)"
)


def codec_of(label: str) -> str | None:
    """Python's codec for a label, case, separators and a language behind a star (RFC 2231 5) aside; None if unknown."""
    return _codec_of(label[:LABEL_CHARS_MAX])


@lru_cache(maxsize=512)
def _codec_of(label: str) -> str | None:
    name = _folded(label.partition("*")[0])
    found = _BY_NAME.get(name) or _BY_NAME.get(name.replace("_", ""))
    if found is None and (inside := _INSIDE.search(name)):  # `3D"koi8-r"`, `charset=utf-8`, `8859-2`
        return _BY_NAME.get(inside[0]) or _BY_NAME.get(f"iso_{inside[0]}")
    return found


def _folded(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def _table() -> dict[str, str]:
    found = {name: codec for name, codec in aliases.items() if _CODECS.fullmatch(codec)}
    found |= {codec: codec for codec in (*list(found.values()), *_BARE)}
    found = {name: _MEANT.get(codec, codec) for name, codec in found.items()}
    found |= {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
    # "cp-1251", "utf 8", "windows1252": without their separators too, where that is nobody else's name.
    return {name.replace("_", ""): codec for name, codec in found.items()} | found


_BY_NAME = _table()

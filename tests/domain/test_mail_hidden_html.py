"""HTML as people see it: what is hidden from them is hidden from the model, and nothing else is."""

from __future__ import annotations

import pytest
from inscriptis.model.canvas.prefix import Prefix
from lxml.html import fragment_fromstring

from tinyfat.domain.mail.html_styles import ATTRIBUTE_CHARS_MAX, MATCHES_MAX, RULES_MAX, style_sheet
from tinyfat.domain.mail.html_text import html_to_text


def shown(html: str) -> str:
    return " ".join(html_to_text(html).split())


HIDDEN = [
    "display:none",
    "DISPLAY : NONE !important",
    "display:none;display:none",
    "dis\\70lay:n\\6fne",
    "display:/* x */none",
    "visibility:hidden",
    "display:none;display:so",
    "opacity:0;opacity:high",
    "font-size:0;font-size:none-such",
    "font-size:0;font-size:14foo",
    "color:#fff;color:nocolour",
    "content-visibility:hidden",
    "visibility:collapse",
    "opacity:0",
    "opacity: 0.0",
    "opacity:1%",
    "font-size:0",
    "font-size:0px",
    "font-size:.1em",
    "font-size:1px",
    "font:0/0 a",
    "max-height:0",
    "max-height:0px;overflow:hidden",
    "height:0;overflow:hidden",
    "width:0;overflow-x:hidden",
    "height:1px;width:1px;overflow:hidden",
    "position:absolute;left:-9999px",
    "position:absolute;top:-1000em",
    "position:fixed;right:-200vw",
    "text-indent:-9999px",
    "margin-left:-9999px",
    "mso-hide:all",
    "clip:rect(0 0 0 0);position:absolute",
    "clip:rect(0,0,0,0)",
    "clip: rect(1px, 1px, 1px, 1px)",
    "clip-path:inset(50%)",
    "clip-path: inset(100%)",
    "transform:scale(0)",
    "transform: translateX(-9999px)",
    "filter:alpha(opacity=0)",
    "color:#fff",
    "color:#fffffe",
    "color:white",
    "color: rgb(255,255,255)",
    "color:rgb(254 254 254)",
    "color:rgba(0,0,0,0)",
    "color:transparent",
    "color:hsl(0,0%,100%)",
    "background:#000;color:#000",
    "background-color:black",
    "color:#123456;background-color:#123457",
]


@pytest.mark.parametrize("style", HIDDEN)
def test_hidden_by_a_style(style: str) -> None:
    body = "<p>seen</p>{}<p>too</p><div{}>SECRET <b>SECRET</b></div> behind"
    assert shown(body.format("", f" style='{style}'")) == "seen too behind"
    for selector, attributes in [
        (".x", " class='a X b'"),
        ("#y", " id=y"),
        ("div.x", " class=x"),
        ("body .x, .z", " class=x"),
        ("html > body > div", ""),
        ("[data-h]", " data-h"),
        ("div[class^='hid']", " class=hidden-a"),
        ("@media screen { div", ""),
        ("@media (min-width:1px) { div", ""),
        ("@media not print { div", ""),
        ("@supports (display:block) { div", ""),
    ]:
        sheet = f"<head><style>p{{color:red}} {selector}{{{style}}}</style></head>"
        assert shown(sheet + body.format("", attributes)) == "seen too behind", selector


@pytest.mark.parametrize(
    "html",
    [
        "<div hidden>SECRET</div>",
        "<p aria-hidden=true>SECRET</p>",
        "<font color=white>SECRET</font>",
        "<font color='#FFFFFF'>SECRET</font>",
        "<table bgcolor=#00ff00><tr><td><font color=#00ff00>SECRET</font></td></tr></table>",
        "<div style='display:none'><p style='display:block'>SECRET</p></div>",
        "<div style='opacity:0'><b style='opacity:1'>SECRET</b></div>",
        "<!-- SECRET -->",
        "<template>SECRET</template>",
        "<dialog>SECRET</dialog>",
        "<video>SECRET</video>",
        "<datalist><option>SECRET</option></datalist>",
        "<script>SECRET</script>",
        "<style>SECRET</style>",
        "<title>SECRET</title>",
        "<img style='display:none' alt=SECRET>",
        "<div style='display:none'><img alt=SECRET></div>",
    ],
)
def test_hidden_otherwise(html: str) -> None:
    assert shown(f"seen {html} too") == "seen too"


@pytest.mark.parametrize(
    "html",
    [
        "<td style='font-size:0'><a style='font-size:14px'>Text</a></td>",  # to shut the gaps between cells
        "<div style='visibility:hidden'><p style='visibility:visible'>Text</p></div>",
        "<a style='background:#0a0;color:#fff'>Text</a>",
        "<table bgcolor='#333333'><tr><td style='color:#ffffff'>Text</td></tr></table>",
        "<body bgcolor=black text=white>Text</body>",
        "<div style='background-image:url(x.png);color:white'>Text</div>",
        "<div style='background:linear-gradient(red,blue);color:white'>Text</div>",
        "<div style='opacity:0.9'>Text</div>",
        "<div style='height:0'>Text</div>",  # it flows over
        "<div style='max-height:200px;overflow:hidden'>Text</div>",
        "<div style='margin-left:-20px'>Text</div>",
        "<div style='text-indent:2em'>Text</div>",
        "<div style='position:relative;top:-3px'>Text</div>",
        "<div style='width:0;height:0'>Text</div>",
        "<div style='color:#eee;background:#222'>Text</div>",
        "<div style='font-size:8px'>Text</div>",
        "<style>.x{display:none}</style><div class=x style='display:block'>Text</div>",
        "<style>.x{display:none} div.x{display:block}</style><div class=x>Text</div>",
        "<style>@media (max-width:600px){.x{display:none!important}}</style><div class=x>Text</div>",
        "<style>@media (prefers-color-scheme:dark){.x{display:none}}</style><div class=x>Text</div>",
        "<style>@media (min-width:5000px){.x{display:none}}</style><div class=x>Text</div>",
        "<div style='display:none;display:block'>Text</div>",
        "<div style='color:white;color:black'>Text</div>",
        "<dialog open>Text</dialog>",
        "<noscript>Text</noscript>",
        "<style>@media print{.x{display:none}}</style><div class=x>Text</div>",
        "<style>a:hover{display:none} .y .x{display:none}</style><a class=x>Text</a>",
        "<style>@font-face{font-family:x} @import url(x);</style><div>Text</div>",
        "<div style='color:notacolour'>Text</div>",
        "<div style=';;:;color'>Text</div>",
    ],
)
def test_not_hidden(html: str) -> None:
    assert shown(html) == "Text"


def test_the_alternative_text_of_images() -> None:
    assert shown("<p>a <img alt='Two for one'> b<img alt=''><img></p>") == "a [Two for one] b"


def test_text_behind_what_is_hidden_stays() -> None:
    assert shown("<p>a<i hidden>x</i>b<i hidden>y</i>c</p><div hidden>z</div>d") == "abc d"


def test_a_sheet_of_thousands_of_rules_still_hides() -> None:
    rules = "".join(f".x{{color:rgb({n % 200},0,0)}}" for n in range(3_000))
    html = f"<style>.x .y{{display:none}}{rules}</style>" + "<p class='x'><b class=y>SECRET</b></p>" * 500
    assert "SECRET" not in html_to_text(html)


def test_the_work_for_a_sheet_made_to_hurt_is_bounded() -> None:
    """Counted, not timed: rules against elements, however many classes an element repeats."""
    sheet = style_sheet((".x" * 19 + ".y{color:red}") * 2_500)
    element = fragment_fromstring(f"<b class='{'x ' * 60_000}'>y</b>")
    sheet.properties(element)
    assert sheet.rules == RULES_MAX
    assert MATCHES_MAX - sheet.matches_left <= RULES_MAX * 21
    assert len(element.get("class")) <= ATTRIBUTE_CHARS_MAX


@pytest.mark.parametrize(
    ("style", "html", "shown"),
    [
        (".h:not(.z){display:none}", "<p class=h>a</p><p class='h z'>b</p>", "b"),
        (":root .h{display:none}", "<p class=h>a</p><p>b</p>", "b"),
        ("p:first-child{display:none}", "<p>a</p><p>b</p><p>c</p>", "b\n\nc"),
        ("p:last-child{display:none}", "<p>a</p><p>b</p><p>c</p>", "a\n\nb"),
        ("p:only-child{display:none}", "<div><p>a</p></div><p>b</p><p>c</p>", "b\n\nc"),
        (".h:hover{display:none}", "<p class=h>a</p>", "a"),
        (".h:is(.k){display:none}", "<p class='h k'>a</p><p class=h>b</p>", "b"),
        ("", "<div style='height:0;overflow:auto'>a</div>b", "b"),
        ("", "<p style='font-size:calc(0px)'>a</p>b", "b"),
        ("", "<p style='color:hwb(0 100% 0%)'>a</p><p style='color:lab(100% 0 0)'>a</p>b", "b"),
        ("", "<p style='color:color(srgb 1 1 1)'>a</p><p style='color:oklch(100% 0 0)'>a</p>b", "b"),
        ("", "<table><tr><td background='x.png'><font color=white>a</font></td></tr></table>", "a"),
    ],
)
def test_near_ways_to_hide(style: str, html: str, shown: str) -> None:
    assert html_to_text(f"<html><style>{style}</style><body>{html}</body></html>").strip() == shown


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("<img src=x title='Offer: two'>", "[Offer: two]"),
        ("<map><area alt=Shop href='https://x.org/s'></map>", "[Shop](https://x.org/s)"),
        ("<input type=image alt=Buy>", "[Buy]"),
        ("<input type=hidden value=secret>x", "x"),
        ("<amp-img alt=A src=x></amp-img>", "[A]"),
        ("<img src='https://x.org/offer.png'>", "[Image: https://x.org/offer.png]"),
        ("<p>Hi <img src='https://x.org/dot.gif'></p>", "Hi"),
        ("<img src='cid:1'><img src='data:image/gif;base64,x'>", ""),
    ],
)
def test_a_mail_of_images_says_what_they_say(html: str, shown: str) -> None:
    assert html_to_text(html).strip() == shown


def test_a_list_in_lists_costs_no_more_than_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """inscriptis looks through all open elements for a bullet: it is asked only where there is one."""
    searches = 0
    search = Prefix.pop_next_bullet

    def counted(prefix: Prefix) -> str:
        nonlocal searches
        searches += 1
        return str(search(prefix))

    monkeypatch.setattr(Prefix, "pop_next_bullet", counted)
    for depth in (1, 200):
        searches = 0
        text = html_to_text("<ul>" * depth + "<li>a<p>b<br>c" * 50)
        assert (text.count("* a") + text.count("+ a") + text.count("- a") + text.count("o a"), searches) == (50, 50)

"""By what a machine's mail is known: one table, which docs/automatic-mail.md shows (a test keeps the two the same).

RFC 3834 5 asks every automatic mail to say so in Auto-Submitted. Many do not; what they say instead is here, each line
with where it is written down. A mark keeps a mail from being answered and no more: its owner can release it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    RESPONDER = "responder"  # a program answers one person: on holiday, received with thanks
    LIST = "list"  # to many
    SYSTEM = "system"  # a program tells of something
    BOUNCE = "bounce"  # a mail system returns something


@dataclass(frozen=True, slots=True)
class Mark:
    """A header field. `field`: `*` is any text, and then separators do not count. `values`: how its first word may
    begin; () is anything but no, none, false and 0."""

    field: str
    values: tuple[str, ...]
    kind: Kind
    source: str


_SEEN = "seen in the field"
_ANSWER = ("auto", "vacation")
_PROGRAM = ("vacation", "holiday", "autorespon", "auto-respon", "autorepl", "auto-repl")

MARKS = (
    Mark(
        "*Auto-Repl*",
        (),
        Kind.RESPONDER,
        "X-Autoreply, X-Auto-Reply-From, X-Mail-Autoreply and the like: sisimai, Discourse",
    ),
    Mark(
        "*Auto-Respon*",
        (),
        Kind.RESPONDER,
        "X-Autorespond, X-MDAutoResponder, X-Auto-Response and the like: MDaemon, cPanel",
    ),
    Mark("*Auto-Answer*", (), Kind.RESPONDER, _SEEN),
    Mark("*Auto-Submitted", ("auto-replied",), Kind.RESPONDER, "Auto-Submitted as others spell it: Discourse"),
    Mark("*Auto-Submitted", (), Kind.SYSTEM, "Auto-Submitted as others spell it: Discourse"),
    Mark("*Vacation*", (), Kind.RESPONDER, _SEEN),
    Mark("*Holiday-Reply*", (), Kind.RESPONDER, "Discourse"),
    Mark("*Out-Of-Office*", (), Kind.RESPONDER, _SEEN),
    Mark("*Machine-Generated*", (), Kind.RESPONDER, "FirstClass; Discourse"),
    Mark("X-POST-MessageClass", ("9",), Kind.RESPONDER, "FirstClass; seen in the field"),
    Mark("X-Apple-Action", ("vacation",), Kind.RESPONDER, "sisimai, its rules for replies and bounces"),
    Mark("Delivered-To", ("autoresponder",), Kind.RESPONDER, "sisimai, its rules for replies and bounces"),
    Mark("X-ME-Content", ("deliver-to=autoresponder",), Kind.RESPONDER, "MailEnable"),
    Mark("X-FreeScout-Mail-Type", ("auto",), Kind.RESPONDER, "FreeScout"),
    Mark("*Auto-Generated*", ("reply",), Kind.RESPONDER, "Lotus Domino, CommuniGate; seen in the field"),
    Mark("*Auto-Generated*", (), Kind.SYSTEM, "Lotus Domino, CommuniGate, Discourse; seen in the field"),
    Mark("X-MS-Exchange-Inbox-Rules-Loop", (), Kind.RESPONDER, "Exchange, on what an inbox rule sends"),
    Mark("X-MS-Exchange-Generated-Message-Source", (), Kind.SYSTEM, "Exchange, on what its agents send"),
    Mark("X-Mailer", _PROGRAM, Kind.RESPONDER, "vacation programs"),
    Mark("User-Agent", _PROGRAM, Kind.RESPONDER, "vacation programs"),
    Mark("Precedence", _ANSWER, Kind.RESPONDER, "RFC 3834 3.1.8 tells of it"),
    Mark("Precedence", ("bulk", "junk", "list"), Kind.LIST, "RFC 2076 3.9; RFC 3834 2"),
    Mark("X-Precedence", _ANSWER, Kind.RESPONDER, _SEEN),
    Mark("X-Precedence", ("bulk", "junk", "list"), Kind.LIST, _SEEN),
    Mark("Preference", _ANSWER, Kind.RESPONDER, "a slip of several programs"),
    Mark("List-*", (), Kind.LIST, "RFC 2369, RFC 2919, RFC 8058; RFC 5230 4.6"),
    Mark("Mailing-List", (), Kind.LIST, "ezmlm"),
    Mark("X-Mailing-List", (), Kind.LIST, "list programs of the Linux kernel and Debian"),
    Mark("X-BeenThere", (), Kind.LIST, "Mailman"),
    Mark("X-Mailman-Version", (), Kind.LIST, "Mailman"),
    Mark("X-ML-Name", (), Kind.LIST, "fml"),
    Mark("X-MLServer", (), Kind.LIST, "fml"),
    Mark("X-MDMailing-List", (), Kind.LIST, "MDaemon"),
    Mark("X-Sympa-To", (), Kind.LIST, "Sympa"),
    Mark("X-ListServer", (), Kind.LIST, "RFC 2076 3.4"),
    Mark("X-Listprocessor-Version", (), Kind.LIST, "RFC 2076 3.4"),
    Mark("X-Google-Group-Id", (), Kind.LIST, "Google Groups"),
    Mark("X-Loop", _ANSWER, Kind.RESPONDER, "procmail's manual, its example of an answer"),
    Mark("X-Cron-Env", (), Kind.SYSTEM, "Vixie cron"),
    Mark("X-RT-Loop-Prevention", (), Kind.SYSTEM, "Request Tracker"),
    Mark("X-OTRS-Loop", (), Kind.SYSTEM, "OTRS"),
    Mark("X-Znuny-Loop", (), Kind.SYSTEM, "Znuny"),
    Mark("X-ServiceNow-Generated", (), Kind.SYSTEM, "ServiceNow"),
    Mark("X-Amazon-Mail-Relay-Type", ("notification",), Kind.SYSTEM, "osTicket, its rules for automatic mail"),
    Mark("Feedback-Type", (), Kind.SYSTEM, "RFC 5965"),
    Mark("X-Failed-Recipients", (), Kind.BOUNCE, "Exim's specification"),
    Mark("Return-Path", ("<>", "<mailer-daemon", "mailer-daemon"), Kind.BOUNCE, "RFC 5321 4.4; RFC 3834 2"),
)
# It asks others for silence (MS-OXCMAIL 2.2.3.2.14), and stands in people's mail too.
NO_MARKS = ("X-Auto-Response-Suppress",)

# How the subject of an automatic answer begins: alone, before a colon or a dash, or in brackets.
# Exchange puts its own words of the mailbox's language there, and no header that would survive.
SUBJECTS: dict[str, tuple[str, ...]] = {
    "English": (
        *("automatic reply", "automatic response", "automatic answer", "automated reply", "automated response"),
        *("auto reply", "auto-reply", "autoreply", "auto response", "auto-response", "autoresponse", "autoresponder"),
        *(
            "auto-responder",
            "auto responder",
            "out of office",
            "out of the office",
            "out-of-office",
            "ooo",
            "ooo reply",
        ),
        *("out of office reply", "out of office autoreply", "out of office auto-reply", "out of office response"),
        *("out of office notification", "out of office message", "outofoffice", "vacation notice"),
        *("vacation reply", "vacation response", "vacation message", "vacation autoreply", "vacation auto-reply"),
        *("auto", "away from the office", "away from office", "away from my mail", "automatically generated reply"),
        *("message automatically answered", "auto acknowledgement", "auto-acknowledgement", "automated message"),
    ),
    "German": (
        *("automatische antwort", "automatische abwesenheitsnotiz", "abwesenheitsnotiz", "abwesenheitsnachricht"),
        *("abwesenheitsbenachrichtigung", "abwesenheitsassistent", "abwesenheitsmeldung", "urlaubsbenachrichtigung"),
        *(
            "automatisierte antwort",
            "automatische rückantwort",
            "automatische nachricht",
            "abwesenheit",
            "urlaubsnotiz",
        ),
        *(
            "abwesenheitsinfo",
            "abwesenheitshinweis",
            "automatische e-mail-antwort",
            "außer haus",
            "ausser haus",
            "autoantwort",
        ),
        *("nicht im büro", "urlaubsmeldung", "automatische eingangsbestätigung", "automatische abwesenheitsnachricht"),
    ),
    "French": (
        *("réponse automatique", "reponse automatique", "réponse automatisée", "message d'absence", "avis d'absence"),
        *(
            "absence du bureau",
            "absent du bureau",
            "absente du bureau",
            "notification d'absence",
            "message automatique",
        ),
        *("réponse d'absence", "hors du bureau", "accusé de réception automatique"),
    ),
    "Spanish": (
        *("respuesta automática", "respuesta automatica", "fuera de la oficina", "fuera de oficina"),
        *("autorespuesta", "ausente de la oficina", "mensaje automático", "respuesta de vacaciones", "autorrespuesta"),
        *("contestación automática",),
    ),
    "Catalan": ("resposta automàtica", "fora de l'oficina"),
    "Galician": ("resposta automática",),
    "Basque": ("erantzun automatikoa",),
    "Italian": (
        *("risposta automatica", "fuori sede", "fuori ufficio", "assente dall'ufficio", "messaggio automatico"),
        *("risposta automatica per assenza", "avviso di assenza", "notifica di assenza"),
    ),
    "Portuguese": (
        *("resposta automática", "resposta automatica", "ausência temporária", "fora do escritório"),
        *("ausência do escritório", "mensagem automática", "auto-resposta", "ausente do escritório"),
    ),
    "Dutch": (
        *("automatisch antwoord", "automatische beantwoording", "afwezigheidsbericht", "niet aanwezig"),
        *("afwezigheidsmelding", "automatische reactie", "automatisch bericht", "niet op kantoor"),
    ),
    "Afrikaans": ("outomatiese antwoord",),
    "Luxembourgish": ("automatesch äntwert",),
    "Swedish": ("autosvar", "automatiskt svar", "frånvaromeddelande", "frånvaroassistenten", "ej på kontoret"),
    "Danish": ("automatisk svar", "automatisk besvarelse", "fraværsmeddelelse", "ikke til stede", "autosvar"),
    "Norwegian": ("automatisk svar", "fraværsmelding", "fraværsassistent", "autosvar", "ikke på kontoret"),
    "Finnish": (
        "automaattinen vastaus",
        "poissaoloviesti",
        "poissaoloilmoitus",
        "poissa toimistosta",
        "automaattivastaus",
    ),
    "Icelandic": ("sjálfvirkt svar",),
    "Polish": (
        *("automatyczna odpowiedź", "odpowiedź automatyczna", "autoodpowiedź", "nieobecność w biurze"),
        *("poza biurem", "nieobecny w biurze", "autoresponder"),
    ),
    "Czech": ("automatická odpověď", "nepřítomnost", "oznámení o nepřítomnosti", "mimo kancelář"),
    "Slovak": ("automatická odpoveď", "neprítomnosť", "mimo kancelárie"),
    "Slovenian": ("samodejni odgovor", "samodejen odgovor"),
    "Croatian": ("automatski odgovor", "automatska poruka"),
    "Serbian": ("аутоматски одговор", "automatski odgovor"),
    "Macedonian": ("автоматски одговор",),
    "Albanian": ("përgjigje automatike",),
    "Hungarian": ("automatikus válasz", "házon kívül", "távolléti üzenet"),
    "Romanian": ("răspuns automat", "raspuns automat"),
    "Bulgarian": ("автоматичен отговор", "извън офиса"),
    "Russian": ("автоматический ответ", "автоответ", "нет на рабочем месте", "автоматическое уведомление", "вне офиса"),
    "Ukrainian": ("автоматична відповідь", "автовідповідь"),
    "Belarusian": ("аўтаматычны адказ",),
    "Kazakh": ("автоматты жауап",),
    "Mongolian": ("автомат хариу",),
    "Greek": ("αυτόματη απάντηση", "εκτός γραφείου"),
    "Turkish": ("otomatik yanıt", "otomatik cevap", "ofis dışında"),
    "Azerbaijani": ("avtomatik cavab",),
    "Armenian": ("ավտոմատ պատասխան",),
    "Georgian": ("ავტომატური პასუხი",),
    "Estonian": ("automaatvastus", "automaatne vastus", "kontorist väljas"),
    "Latvian": ("automātiskā atbilde", "automātiska atbilde"),
    "Lithuanian": ("automatinis atsakymas", "automatinis atsakas"),
    "Welsh": ("ateb awtomatig",),
    "Irish": ("freagra uathoibríoch",),
    "Hebrew": ("תשובה אוטומטית", "מענה אוטומטי", "מחוץ למשרד"),
    "Arabic": ("رد تلقائي", "الرد التلقائي", "رد آلي", "خارج المكتب"),
    "Persian": ("پاسخ خودکار",),
    "Urdu": ("خودکار جواب",),
    "Hindi": ("स्वचालित उत्तर", "स्वचालित जवाब"),
    "Bengali": ("স্বয়ংক্রিয় উত্তর",),
    "Thai": ("ตอบกลับอัตโนมัติ", "การตอบกลับอัตโนมัติ"),
    "Vietnamese": ("trả lời tự động", "thư trả lời tự động", "tự động trả lời"),
    "Indonesian": ("balasan otomatis", "jawaban otomatis"),
    "Malay": ("balasan automatik", "jawapan automatik"),
    "Filipino": ("awtomatikong tugon",),
    "Swahili": ("jibu otomatiki",),
    "Japanese": (
        *(
            "自動応答",
            "自動返信",
            "不在通知",
            "不在応答",
            "自動返信メール",
            "自動応答メール",
            "不在のお知らせ",
            "不在自動応答",
            "自動送信",
        ),
    ),
    "Chinese": (
        *(
            "自动答复",
            "自动回复",
            "自動回覆",
            "自動答覆",
            "自動回復",
            "外出通知",
            "不在办公室",
            "自动回覆",
            "不在辦公室",
            "休假通知",
        ),
        *("自动应答",),
    ),
    "Korean": (
        "자동 회신",
        "자동 응답",
        "자동회신",
        "자동응답",
        "부재중",
        "부재 중",
        "자동 답장",
        "자동답장",
        "부재중 자동 응답",
    ),
}

# Local parts that nobody reads, separators and case aside; `*`: whatever follows.
ROLES = (
    *("mailer-daemon*", "mail-daemon*", "mailer-system", "mail-system", "postmaster*", "bounce", "bounces"),
    *("mail-delivery*", "maildelivery-subsystem", "mail-delivery-system", "delivery-status*", "mail-deamon*"),
    *("majordomo", "listserv", "mailman", "mdaemon", "ezmlm", "sympa", "smartlist"),
    *("auto-reply*", "auto-responder*", "auto-response*", "auto-answer*", "auto-mailer", "auto-confirm*", "vacation"),
    *(
        "no-reply*",
        "do-not-reply*",
        "dont-reply*",
        "never-reply*",
        "not-reply",
        "no-replay",
        "no-replies",
        "noreplyto*",
    ),
    *("no-response*", "do-not-respond*", "dont-respond*", "no-answer*", "do-not-answer*", "no-email*", "no-mail"),
    *("reply-not-possible", "unattended", "unmonitored*", "no-return", "devnull", "dev-null", "null", "nobody"),
    *("ne-pas-repondre*", "nepasrepondre*", "pas-de-reponse", "sans-reponse*", "noreponse", "no-reponse"),
    *("nicht-antworten*", "nicht-beantworten*", "keine-antwort*", "bitte-nicht-antworten*", "antwort-nicht-moeglich"),
    *("no-responder*", "no-responda*", "no-contestar*", "no-conteste*", "no-respondre*", "no-responde*"),
    *("nao-responda*", "nao-responder*", "nao-responde*", "non-rispondere*", "no-rispondere", "non-rispondete"),
    *(
        "niet-beantwoorden*",
        "niet-antwoorden*",
        "geen-antwoord*",
        "geen-reply",
        "inte-svara*",
        "svara-inte*",
        "svar-ej",
    ),
    *("ikke-svar*", "svar-ikke*", "ei-vastausta", "ala-vastaa*", "ei-vastata*", "nie-odpowiadac*", "nie-odpowiadaj*"),
    *("brak-odpowiedzi", "neodpovidat*", "neodpovidejte*", "neodpovedat*", "ne-valaszoljon*", "ne-valaszolj*"),
    *("nu-raspundeti*", "nu-raspunde*", "yanitlamayin*", "cevaplamayin*", "cevap-vermeyin*", "ne-otvechat*"),
    *("neotvechai*", "ne-odgovarjaj*", "ne-odgovarati*", "jangan-balas*", "tidak-dibalas", "nevastake"),
)

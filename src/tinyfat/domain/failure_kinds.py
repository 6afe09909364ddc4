"""Each failure a person can read about: who reads it, its cause, its words and the next step. docs/failures.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reader(StrEnum):
    CORRESPONDENT = "correspondent"  # whoever wrote to an agent
    OWNER = "owner"
    OPERATOR = "operator"


class FailureId(StrEnum):
    # A turn that ended without an answer: the reply's words. The first stands before all others but `silent`.
    STOPPED = "stopped"
    TURN_FAILED = "turn-failed"
    MODEL_FAILED = "model-failed"
    MODEL_UNREACHABLE = "model-unreachable"
    VENDOR_LIMIT = "vendor-limit"
    VENDOR_REFUSED = "vendor-refused"
    CONTEXT_FULL = "context-full"
    EMPTY_ANSWER = "empty-answer"
    SILENT = "silent"
    MESSAGE_REFUSED = "message-refused"
    TOO_LATE = "too-late"
    RUNTIME_DOWN = "runtime-down"
    MACHINE_UNREACHABLE = "machine-unreachable"
    # An answer that is not whole: a note under it.
    FILES_LEFT_OUT = "files-left-out"
    FILES_TOO_LARGE = "files-too-large"
    ANSWER_CUT = "answer-cut"
    # A model call that may not be made: said in the answer's place.
    KEY_UNKNOWN = "key-unknown"
    CALL_REPEATED = "call-repeated"
    OWNER_KEYS_CHANGED = "owner-keys-changed"
    SWITCHED_OFF = "switched-off"
    CAP_MONTH = "cap-month"
    CAP_DAY = "cap-day"
    CAP_TURN_MONEY = "cap-turn-money"
    CAP_TURN_CALLS = "cap-turn-calls"
    CALL_REFUSED = "call-refused"
    # Mails of ours to owners.
    ALLOWANCE_USED = "allowance-used"
    ALLOWANCE_USED_UP = "allowance-used-up"
    DAY_CAP_REACHED = "day-cap-reached"
    TURN_STOPPED_MONEY = "turn-stopped-money"
    TURN_STOPPED_CALLS = "turn-stopped-calls"
    MEMORY_LOST = "memory-lost"
    LOOP_HELD = "loop-held"
    # Mail that is not taken: the sender's own mail system tells its sender.
    NOT_OUR_DOMAIN = "not-our-domain"
    NO_SUCH_AGENT = "no-such-agent"
    AGENT_GONE = "agent-gone"
    AGENT_NOT_MADE = "agent-not-made"
    ADDRESS_MALFORMED = "address-malformed"
    MAILBOX_FULL = "mailbox-full"
    SENDERS_MAIL_WAITS = "senders-mail-waits"
    STRANGERS_MAIL_WAITS = "strangers-mail-waits"
    MAIL_TOO_LARGE = "mail-too-large"
    STRANGERS_MAIL_TOO_LARGE = "strangers-mail-too-large"
    DISK_NEARLY_FULL = "disk-nearly-full"
    DISK_SHORT_OF_ROOM = "disk-short-of-room"
    MAIL_BUSY = "mail-busy"
    MAIL_UNREADABLE = "mail-unreadable"
    SENDERS_BUSY = "senders-busy"
    SENDER_UNKNOWN = "sender-unknown"
    POLICY_UNKNOWN = "policy-unknown"
    LEDGER_AWAY = "ledger-away"


@dataclass(frozen=True, slots=True)
class Kind:
    """`words` and `help` are templates; `clauses` are (field, sentence) pairs, added where that field has a value."""

    reader: Reader
    cause: str
    words: str
    help: str
    clauses: tuple[tuple[str, str], ...] = ()
    subject: str = ""  # of a mail of its own


_LATER = "Your mail is kept. To try again, answer this message later."
_AGAIN = "Your mail is kept. To try again, simply answer this message."
_OPERATOR_MENDS = (
    "Only whoever runs this agent can mend that; tell them. Then answer this message, and it is tried again."
)
_MORE = "To allow more, ask whoever runs this agent, who can do it with: `tinyfat cap set {agent} "
_WHERE_IT_WENT = "\n\nWhat it went into, they see with: `tinyfat usage {agent} --by turn`"
_COULD = ("amount", " A call that could have cost up to {amount} was refused.")
_SO_FAR = (
    ("spent", "\n\nSo far this month: {spent}."),
    ("reserved", " Held for calls under way: {reserved}."),
)
_SPENT = (
    ("reserved", " For calls under way {reserved} is held."),
    ("amount", " The next call could cost up to {amount}."),
)
_TO = Reader.CORRESPONDENT

KINDS: Mapping[FailureId, Kind] = {
    FailureId.STOPPED: Kind(
        _TO,
        "A turn ended in one of the failures below: the reply begins with this sentence.",
        "I could not answer this mail, and I have stopped trying.",
        "",
    ),
    FailureId.TURN_FAILED: Kind(
        _TO,
        "A mistake in TinyFat's own program on the agent's machine, or a failure that this list does not know.",
        "Something went wrong on {agent}'s machine while it worked on your mail.",
        _AGAIN + " Whoever runs this agent finds the reason with your mail.",
    ),
    FailureId.MODEL_FAILED: Kind(
        _TO,
        "The runtime reports that its model failed, and not why.",
        "{agent}'s model could not answer.",
        _LATER,
    ),
    FailureId.MODEL_UNREACHABLE: Kind(
        _TO,
        "No vendor of the model answered: it is down (5xx, 529), overloaded or cannot be reached.",
        "{agent}'s model could not be reached: its vendor does not answer or is overloaded.",
        "Your mail is kept. This usually passes within the hour: answer this message then, and it is tried again.",
    ),
    FailureId.VENDOR_LIMIT: Kind(
        _TO,
        "The vendor of the model answers 429: its limit on calls or tokens is reached. The moment is its retry-after.",
        "The vendor of {agent}'s model lets no more calls through {until}: a limit of the vendor's is reached.",
        "Your mail is kept. Answer this message once that time has passed, and it is tried again.",
    ),
    FailureId.VENDOR_REFUSED: Kind(
        _TO,
        "The vendor of the model refuses the account (401, 402, 403): a key, a payment or a permission is missing.",
        "The vendor of {agent}'s model refused the call: the account there does not allow it.",
        _OPERATOR_MENDS,
    ),
    FailureId.CONTEXT_FULL: Kind(
        _TO,
        "The conversation is longer than the model can read at once, and the runtime could not shorten it enough.",
        "This conversation has grown longer than {agent}'s model can read at once, so answering in it will not help.",
        "Begin a new conversation: write a new mail instead of a reply, or write to {agent}+TOPIC@ the same domain "
        "(any word for TOPIC), and repeat what {agent} must know. If one mail alone is that long, send it in parts.",
    ),
    FailureId.EMPTY_ANSWER: Kind(
        _TO,
        "The runtime ended the turn with neither words nor files, after trying again.",
        "{agent} finished without an answer.",
        _AGAIN,
    ),
    FailureId.SILENT: Kind(
        _TO,
        "The agent decided to say nothing: its answer is only a marker such as NO_REPLY. The ledger says `silent`.",
        "{agent} has read your mail and decided that it needs no answer.",
        "If you do want one, answer this message and say so.",
    ),
    FailureId.MESSAGE_REFUSED: Kind(
        _TO,
        "The runtime refuses the message as it is, for example for its size or a file in it.",
        "{agent}'s runtime could not take this message as it is.",
        "Send it again shorter, or without its attachments.",
    ),
    FailureId.TOO_LATE: Kind(
        _TO,
        "The turn's deadline passed while the runtime was at work or the turn waited behind others.",
        "{agent} could not answer this in time.",
        "Your mail is kept. To try again, answer this message; a smaller task at a time is done sooner.",
    ),
    FailureId.RUNTIME_DOWN: Kind(
        _TO,
        "The turn's deadline passed while the runtime was not up: installing, starting or crashing.",
        "{agent} could not answer this in time: the program it runs on is not up.",
        _LATER + " If that goes on, tell whoever runs this agent.",
    ),
    FailureId.MACHINE_UNREACHABLE: Kind(
        _TO,
        "The agent's machine was not connected, or said nothing, until the turn's deadline.",
        "{agent} could not be reached for {minutes} min: its machine does not answer.",
        _LATER + " If that goes on, tell whoever runs this agent.",
    ),
    FailureId.FILES_LEFT_OUT: Kind(
        _TO,
        "The answer names files (MEDIA:) that are missing, unreadable, too large, or not in the agent's workspace.",
        "Not attached: {files}.",
        "Answer and ask for it again if you need it.",
    ),
    FailureId.FILES_TOO_LARGE: Kind(
        _TO,
        "The answer's files are together larger than an answer may be.",
        "The files that belong to this answer are too large to send.",
        "Ask for them one at a time, or smaller.",
    ),
    FailureId.ANSWER_CUT: Kind(
        _TO,
        "The answer's text is longer than a mail of ours may be.",
        "This answer was cut here: it is too long for a mail.",
        "Ask for the rest, or for it as a file.",
    ),
    FailureId.KEY_UNKNOWN: Kind(
        Reader.OPERATOR,
        "A call with a key of the relay that is unknown or revoked.",
        "This key opens nothing: it is unknown or was revoked.",
        "`tinyfat key add NAME` makes a new one.",
    ),
    FailureId.CALL_REPEATED: Kind(
        Reader.OWNER,
        "A call with the id of one that was made and settled.",
        "This call of {agent} was made and paid before; it is not made again.",
        "Ask again.",
    ),
    FailureId.OWNER_KEYS_CHANGED: Kind(
        Reader.OWNER,
        "The owner's own keys changed while the call was judged.",
        "The keys that {agent}'s owner brought have changed at this moment.",
        "Try again.",
    ),
    FailureId.SWITCHED_OFF: Kind(
        Reader.OWNER,
        "The agent's kill switch is on.",
        "{agent} is switched off: it may not call a model.",
        "To have it on again, ask whoever runs this agent, who can do it with: `tinyfat cap unkill {agent}`.",
    ),
    FailureId.CAP_MONTH: Kind(
        Reader.OWNER,
        "The cap for the month leaves no room for the call.",
        "{agent} has reached what it may spend this month: {spent} of {cap} is spent.",
        "It starts anew on the first of next month (UTC). " + _MORE + "--month DOLLARS`",
        _SPENT,
    ),
    FailureId.CAP_DAY: Kind(
        Reader.OWNER,
        "The cap for the day leaves no room for the call.",
        "{agent} has reached what it may spend today: {spent} of {cap} is spent.",
        "It starts anew at midnight (UTC). " + _MORE + "--day DOLLARS`",
        _SPENT,
    ),
    FailureId.CAP_TURN_MONEY: Kind(
        Reader.OWNER,
        "The cap for one answer leaves no room for the call.",
        "{agent} has reached what it may spend for one answer: {spent} of {cap} is spent.",
        "Ask again, perhaps for less at once. " + _MORE + "--turn DOLLARS`",
        _SPENT,
    ),
    FailureId.CAP_TURN_CALLS: Kind(
        Reader.OWNER,
        "The cap on calls for one answer is reached.",
        "{agent} has called the model {calls} times for one answer, which is as often as it may, and was stopped: it "
        "was likely going in circles.",
        "Ask again in other words. " + _MORE + "--turn-calls N`",
    ),
    FailureId.CALL_REFUSED: Kind(
        Reader.OWNER,
        "A call that may not be made, for a reason that came without words.",
        "This agent may not call a model now.",
        "Ask whoever runs this agent for the reason.",
    ),
    FailureId.ALLOWANCE_USED: Kind(
        Reader.OWNER,
        "A level (50, 80 %) of the month's cap was passed.",
        "{agent} has used {percent} % of its allowance of {cap} this month.",
        "It goes on as before. " + _MORE + "--month DOLLARS`" + _WHERE_IT_WENT,
        (_COULD, *_SO_FAR),
        "{agent} has used {percent} % of this month's allowance",
    ),
    FailureId.ALLOWANCE_USED_UP: Kind(
        Reader.OWNER,
        "The month's cap was reached.",
        "{agent} has reached its allowance of {cap} this month.",
        "Until the first of next month (UTC) it answers that it has none left. "
        + _MORE
        + "--month DOLLARS`"
        + _WHERE_IT_WENT,
        (_COULD, *_SO_FAR),
        "{agent} has used up this month's allowance",
    ),
    FailureId.DAY_CAP_REACHED: Kind(
        Reader.OWNER,
        "The day's cap was reached.",
        "{agent} has reached its cap of {cap} a day.",
        "It goes on at midnight (UTC). " + _MORE + "--day DOLLARS`" + _WHERE_IT_WENT,
        (_COULD, *_SO_FAR),
        "{agent} has reached today's cap",
    ),
    FailureId.TURN_STOPPED_MONEY: Kind(
        Reader.OWNER,
        "One answer reached its cap of money.",
        "One answer of {agent} has reached its cap of {cap}.",
        "The next question starts afresh. " + _MORE + "--turn DOLLARS`" + _WHERE_IT_WENT,
        (_COULD, *_SO_FAR),
        "{agent} was stopped: one answer cost too much",
    ),
    FailureId.TURN_STOPPED_CALLS: Kind(
        Reader.OWNER,
        "One answer reached its cap of calls.",
        "{agent} has called its model {calls} times for one answer and was stopped: it was likely going in circles.",
        "The next question starts afresh. " + _MORE + "--turn-calls N`" + _WHERE_IT_WENT,
        _SO_FAR,
        "{agent} was stopped: it called the model too often for one answer",
    ),
    FailureId.MEMORY_LOST: Kind(
        Reader.OWNER,
        "The agent's server was replaced and its state could not be taken along.",
        "The server that {agent} lived on was replaced, and what lay on it could not be taken along: what {agent} "
        "remembered of your conversations, the files it kept, and what was set up there.\n\n"
        "{agent} has answered a first question on its other server. Its name, its address and its SSH host key are "
        "the same, and your SSH keys open it as before.",
        "Go on writing to {address}; mail that came meanwhile is answered. In a conversation you had begun, say again "
        "what {agent} should know of it. No mail is lost: what you wrote to each other is still there.",
        (),
        "{agent} has another server, and its memory starts anew",
    ),
    FailureId.LOOP_HELD: Kind(
        Reader.OWNER,
        "Mail of one sender came back within seconds of the agent's replies, or in the same words, many times in a "
        "row: a loop.",
        "{sender} has answered {agent} several times in a row as automatic responders do, within seconds of each reply "
        "or in the same words. To end the loop, further mail of this conversation is kept and not answered.",
        "If a person wrote it, ask whoever runs this agent to let it through, and the conversation goes on:\n"
        "    tinyfat mail release {message}\n\nIf a program wrote it, nothing needs to be done.",
        (),
        "{agent} has stopped answering {sender}: it looks like a loop",
    ),
    FailureId.NOT_OUR_DOMAIN: Kind(
        _TO,
        "SMTP: the recipient's domain is not this TinyFat's.",
        "this is not an address of {domain}",
        "",
    ),
    FailureId.NO_SUCH_AGENT: Kind(
        _TO,
        "SMTP: no agent has this name.",
        "there is no agent of this name here",
        "",
    ),
    FailureId.AGENT_GONE: Kind(
        _TO,
        "SMTP: the agent is being destroyed.",
        "this agent is not here",
        "",
    ),
    FailureId.AGENT_NOT_MADE: Kind(
        _TO,
        "SMTP: the agent could not be made, or not yet. The sender's mail system keeps the mail, as it is told 450.",
        "this agent could not be made yet.",
        "Nothing needs to be done: your mail system sends it again.",
    ),
    FailureId.ADDRESS_MALFORMED: Kind(
        _TO,
        "SMTP: the recipient is no address of a mailbox, or names no agent before the '+'.",
        "this is not an address such as ada@example.org.",
        "Correct the address and send it again.",
    ),
    FailureId.MAILBOX_FULL: Kind(
        _TO,
        "SMTP and HTTP: all that is kept of the agent's conversations has reached its bound.",
        "This agent's mailbox is full.",
        "Send it again later; only whoever runs this agent can make room.",
    ),
    FailureId.SENDERS_MAIL_WAITS: Kind(
        _TO,
        "SMTP and HTTP: the sender's mail that waits unanswered has reached its bound.",
        "Enough mail of this sender waits for this agent's owner already.",
        "Send it again once the owner has looked at it.",
    ),
    FailureId.STRANGERS_MAIL_WAITS: Kind(
        _TO,
        "SMTP and HTTP: the unanswered mail of all who are not known here has reached its bound.",
        "Enough mail of senders who are not known here waits for this agent's owner already.",
        "Send it again later, or ask the owner to allow your address.",
    ),
    FailureId.MAIL_TOO_LARGE: Kind(
        _TO,
        "SMTP and HTTP: the mail alone is larger than all that is kept of an agent's conversations.",
        "This mail is larger than all that is kept of an agent's conversations.",
        "Send it in parts, or without its attachments.",
    ),
    FailureId.STRANGERS_MAIL_TOO_LARGE: Kind(
        _TO,
        "SMTP and HTTP: the mail alone is larger than what is kept of one who is not known here.",
        "This mail is larger than all that is kept of a sender who is not known here.",
        "Send it shorter, or ask the agent's owner to allow your address.",
    ),
    FailureId.DISK_NEARLY_FULL: Kind(
        _TO,
        "SMTP and HTTP: a disk that mail lies on is nearly full.",
        "This server's disk is nearly full.",
        "Send it again later; if that goes on, tell whoever runs this server.",
    ),
    FailureId.DISK_SHORT_OF_ROOM: Kind(
        _TO,
        "SMTP and HTTP: a disk that mail lies on has no room for so large a mail.",
        "This server's disk has no room for a mail of this size now.",
        "Send it again later, or smaller.",
    ),
    FailureId.MAIL_BUSY: Kind(
        _TO,
        "SMTP and HTTP: the processes that read large mails have as many as they may.",
        "Too many large mails are being read at once.",
        "Send it again in a few minutes.",
    ),
    FailureId.MAIL_UNREADABLE: Kind(
        _TO,
        "SMTP and HTTP: reading the mail takes more time or memory than a mail may.",
        "This mail cannot be read: it takes more time or memory than a mail may.",
        "Send it as plain text, or without its attachments.",
    ),
    FailureId.SENDERS_BUSY: Kind(
        _TO,
        "SMTP and HTTP: as many senders are being checked as may be at once.",
        "Too many senders are being checked at once.",
        "Send it again in a few minutes.",
    ),
    FailureId.SENDER_UNKNOWN: Kind(
        _TO,
        "SMTP and HTTP: the DNS did not answer for SPF or DKIM, and the answer decides.",
        "The sender could not be checked: the DNS of {domain} does not answer just now.",
        "Send it again soon; if that goes on, whoever runs the DNS of {domain} can mend it.",
    ),
    FailureId.POLICY_UNKNOWN: Kind(
        _TO,
        "SMTP and HTTP: the DNS did not answer for the sender's DMARC policy, and it decides.",
        "The sender could not be checked: the DMARC policy of {domain} cannot be looked up just now.",
        "Send it again soon; if that goes on, whoever runs the DNS of {domain} can mend it.",
    ),
    FailureId.LEDGER_AWAY: Kind(
        _TO,
        "HTTP: the database does not answer. SMTP says so by a literal of its own, below.",
        "The ledger is away.",
        "Send it again in a few minutes.",
    ),
}

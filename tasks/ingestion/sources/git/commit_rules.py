"""Rules for commits that become edits, from CommitPackFT (Muennighoff et al. 2023, "OctoPack").

The subject is the instruction, so it must say what to do with this one file, without reference to
anything outside it (a ticket, a link, a version). Tokens are words and punctuation marks: this
stage has no tokenizer, and the limits are coarse.
"""

import re

from tasks.core.languages.protocol import Language, NotParsableError

MIN_SUBJECT, MAX_SUBJECT = 10, 1000
MIN_WORDS = 5
TOKEN = re.compile(r"\w+|[^\w\s]")
CI_MARK = re.compile(r"\[(?:ci skip|skip ci)\]", re.IGNORECASE)

_VERBS = """
abort accept adapt add adjust align allow annotate append apply assert assign avoid base break
build bundle cache calculate call cast catch change check clarify clean cleanup clear close
collapse collect combine compare compile complete compress compute configure connect consolidate
convert copy correct cover create cut deactivate debug declare decode decouple decrease
deduplicate default defer define delay delete deprecate derive detect disable discard display do
document don't downgrade drop emit enable encode enforce enhance ensure escape establish exclude
execute exit expand expect explain expose extend extract factor filter finalize find finish fix
flatten flush force format freeze generalize generate get give group guard handle hide hoist
ignore implement import improve include increase increment indent infer inherit initialize
inject inline insert install integrate introduce invert isolate iterate join keep leave let
limit link list load lock log lower make manage map mark match measure memoize merge migrate
mock modernize modify move name narrow normalize omit open optimize order override package
parametrize parse pass patch permit pin port prefer prepare prepend preserve prevent print
process prohibit propagate protect provide prune publish purge push put quote raise read
rearrange rebuild record redefine redirect reduce refactor refine reformat register reimplement
reject relax release relocate remove rename render reorder reorganize repair repeat replace
report represent require reset resolve respect restore restrict restructure retrieve retry
return reuse reverse revise reword rework rewrite round run sanitize save scale select send
separate serialize set setup shorten show shrink silence simplify skip sort specify speed split
stabilize standardize start stop store streamline strip substitute support suppress swap switch
sync tag take test throw tidy track transform treat trigger trim truncate try turn tweak type
unify unlock unwrap update upgrade use validate verify warn whitelist widen wrap write yield
"""
IMPERATIVES = frozenset(_VERBS.split())

# what a subject may not contain: (name, pattern)
EXCLUDED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("merge", re.compile(r"\bmerge (?:branch|pull request|remote|tag)\b", re.I)),
    ("version bump", re.compile(r"^(?:bump|set version|update version|release)\b", re.I)),
    ("work in progress", re.compile(r"\bwip\b|work in progress|^(?:fixup|squash)!", re.I)),
    ("link", re.compile(r"https?://|\bwww\.|//codereview", re.I)),
    ("ticket", re.compile(r"(?:issue|bug|feature|ticket|pr)\s*#?\s*\d+|#\d+|\b[A-Z]{2,9}-\d+\b")),
    ("commit id", re.compile(r"\b[0-9a-f]{40}\b")),
    ("person", re.compile(r"\bi\b|\bi'(?:ve|m)\b|thanks to\b|signed-off-by", re.I)),
    ("code review", re.compile(r"code review|cherry picked from|auto commit|leetcode", re.I)),
)


def clean_subject(subject: str) -> str:
    """The subject without marks for CI systems."""
    return " ".join(CI_MARK.sub("", subject).split())


def subject_problem(subject: str) -> str:
    """Why a (cleaned) subject is not an instruction; "" if it is one."""
    if not MIN_SUBJECT <= len(subject) <= MAX_SUBJECT:
        return "subject too short or too long"
    words = subject.split()
    if len(words) < MIN_WORDS:
        return "subject of few words"
    for name, pattern in EXCLUDED:
        if pattern.search(subject):
            return f"subject with {name}"
    return "" if words[0].lower().rstrip(":,") in IMPERATIVES else "subject not imperative"


def edit_problem(
    before: str, after: str, min_tokens: int, max_tokens: int, language: Language
) -> str:
    """Why two states of a file are not an edit to learn; "" if they are one."""
    if before.split() == after.split():
        return "edit of blanks only"
    sizes = [sum(1 for _ in TOKEN.finditer(text)) for text in (before, after)]
    if min(sizes) < min_tokens:
        return "edit of a short file"
    if max(sizes) > max_tokens:
        return "edit of a long file"
    try:
        language.parse(after)
    except NotParsableError:
        return f"edit that leaves no valid {language.title}"
    return ""

"""Encodings of source files before UTF-8."""

import codecs
import re

# as Python, Ruby, Emacs and Vim understand it, in the first two lines
DECLARED = re.compile(rb"\A(?:[^\n]*\n)?[^\n]*coding[:=][ \t]*([-\w.]+)")
HEAD_BYTES = 400
WESTERN = "cp1252"
HIGH = re.compile(rb"[\x80-\xff]+")
LONG_RUN = 4  # letters with accents stand among plain ones; other scripts are long runs
MAX_LONG_SHARE = 0.2  # of the bytes that are not ASCII
CONTROLS = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # what cp1252 does not define


def legacy_encoding(raw: bytes) -> str:
    """The encoding of a source file if it is neither UTF-8 nor UTF-16; "" where it is not known.

    It is the declared one, else that of western Europe if the bytes look like it: without a
    declaration, a text in Chinese, Russian or Japanese can't be told for certain.
    """
    if raw.isascii() or raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ""
    if declared := DECLARED.match(raw[:HEAD_BYTES]):
        try:
            name = codecs.lookup(declared[1].decode()).name
            raw.decode(name)
        except (LookupError, UnicodeError):
            pass
        else:
            return "" if name.startswith("utf") else name
    try:
        raw.decode()
    except UnicodeDecodeError:
        runs = [len(run) for run in HIGH.findall(raw)]
        of_others = sum(length for length in runs if length >= LONG_RUN)
        is_western = of_others <= MAX_LONG_SHARE * sum(runs) and not CONTROLS.search(raw)
        return WESTERN if is_western and b"\0" not in raw else ""
    return ""

import ast
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.filtering.redaction.redact import placeholder, redact, suspects
from tasks.filtering.redaction.secret_patterns import FORMATS

ALL = ("secret", "email", "ip")
KEY = (
    "-----BEGIN RSA "
    + "PRIVATE KEY-----\n"
    + "MIIEpAIBAAKCAQEA" * 5
    + "\n-----END RSA PRIVATE KEY-----"
)

# put together here, so that no scanner takes this file for a leak
SECRETS = {
    "aws_key_id": "AK" + "IA" + "Q3EGRIUZ7YPLMN2K",
    "aws_secret": "aws_secret = '" + "wJalrXUtnFEMI/K7MDENG/bPxRfi" + "CYzzzzzzKEY1" + "'",
    "github": "gh" + "p_" + "a1B2" * 9,
    "gitlab": "gl" + "pat-" + "a1B2c" * 4,
    "slack": "xo" + "xb-" + "123456789012-abcdefGHIJ",
    "slack_webhook": "https://hooks.slack.com/" + "services/T00000000/B00000000/XXXXXXXXXXXX",
    "stripe": "sk" + "_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "google": "AI" + "za" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "google_oauth": "GOC" + "SPX-" + "a1B2" * 7,
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9." + "ey" + "JzdWIiOiIxMjM0In0." + "dozjgNryP4J3jVmNHl0w",
    "npm": "np" + "m_" + "a1B2" * 9,
    "pypi": "py" + "pi-AgE" + "IcHlwaS5vcmc" * 6,
    "huggingface": "h" + "f_" + "abCD" * 8 + "ef",
    "openai": "sk" + "-" + "a1B2" * 5 + "T3Blbk" + "FJ" + "a1B2" * 5,
    "anthropic": "sk" + "-ant-" + "api03-" + "a1B2" * 6,
    "sendgrid": "S" + "G." + "a1B2" * 5 + "ab." + "a1B2" * 10 + "abc",
    "twilio": "S" + "K" + "0123456789abcdef" * 2,
    "mailchimp": "0123456789abcdef" * 2 + "-us" + "12",
    "square": "sq" + "0atp-" + "a1B2" * 5 + "ab",
    "telegram": "123456789:" + "AA" + "a1B2" * 8 + "c",
    "digitalocean": "do" + "p_v1_" + "0123456789abcdef" * 4,
    "shopify": "sh" + "pat_" + "0123456789abcdef" * 2,
    "azure_storage": "Account" + "Key=" + "a1B2" * 21 + "ab==",
    "artifactory": "AK" + "C" + "a1B2" * 16,
    "docker": "dc" + "kr_pat_" + "a1B2" * 6 + "abc",
    "databricks": "da" + "pi" + "0123456789abcdef" * 2,
    "password_in_url": "postgres://anna:" + "tr0ub4dor" + "@db.internal.org/x",
}  # fmt: skip


def kinds(text: str) -> list[str]:
    return [span.kind for span in redact(text, ALL)[1]]


def test_every_format_has_an_example() -> None:
    assert {form.name for form in FORMATS} == set(SECRETS)


KINDS = ("secret", "email", "ip")


@pytest.mark.parametrize("kind", SECRETS)
def test_secret_of_each_format_is_replaced(kind: str) -> None:
    text = f'x = "{SECRETS[kind]}"' if '"' not in SECRETS[kind] else SECRETS[kind]
    redacted, spans = redact(text, ALL)
    assert [span.kind for span in spans] == [kind] and placeholder(kind) in redacted
    assert text[spans[0].start : spans[0].end] not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "Write to anna.muster+x@uni-mainz.de now",
        "# Author: Anna <a@b.io>",
        "mailto:anna@mail.gov.uk.",
        r"'first\nanna@home.org'",
    ],
)
def test_email_is_replaced(text: str) -> None:
    assert kinds(text) == ["email"]


@pytest.mark.parametrize(
    "text",
    [
        "a@b.T",
        "y = a@b.conj()",
        "x@w.dot(z)",
        "@functools.cache",
        "root@localhost",
        "git@github.com:user/x.git"[:3] + "@{host}",
        "self.weights@other.mT",
    ],
)
def test_what_is_no_address_stays(text: str) -> None:
    assert redact(text, ALL) == (text, [])


@pytest.mark.parametrize(
    "text", ["connect('93.184.216.34')", "at 2606:2800:220:1:248:1893:25c8:1946"]
)
def test_public_ip_is_replaced(text: str) -> None:
    assert kinds(text) == ["ip"]


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "192.168.1.20",
        "10.20.30.40",
        "version 11.22.33.44",
        "== 12.10.24.13",
        "1.2.3.4",
        "8.8.8.8",
        "1.11.21.31.41",
        "300.168.11.20",
        "x[a::b]",
        "::1",
        "fe80:0:0:0:1:2:3:4",
        "12:30:45:10:20",
    ],
)
def test_private_addresses_and_versions_stay(text: str) -> None:
    assert redact(text, ALL) == (text, [])


def test_private_key_is_replaced_whatever_the_settings() -> None:
    assert redact(f"x = '''{KEY}'''", ())[0] == "x = '''REDACTED_PRIVATE_KEY'''"


def test_header_of_a_key_alone_is_no_key() -> None:
    text = 'HEADER = "-----BEGIN RSA ' + 'PRIVATE KEY-----"\nif line == HEADER:\n    return 1'
    assert redact(text, ALL) == (text, [])


def test_kinds_that_are_not_asked_for_stay() -> None:
    text = f"anna@home.org 93.184.216.34 {SECRETS['github']}"
    assert [s.kind for s in redact(text, ("ip",))[1]] == ["ip"]


def test_spans_are_those_of_the_text_as_it_was() -> None:
    text = f"{SECRETS['github']} anna@home.org"
    assert [text[s.start : s.end] for s in redact(text, ALL)[1]] == text.split()


FOUND = st.sampled_from(
    [*(s for s in SECRETS.values() if "'" not in s), "anna@home.org", "93.184.216.34"]
)
HOLES = (
    "x = '{0}'",
    "# see {0}\nx = 1",
    'def f(a):\n    """Ask {0}."""\n    return f"{{a}} {0}"',
    "x = b'{0}'",
    r"x = 'a\n{0}\t'",
    r"x = '\x41{0}'",
    "x = r'\\n{0}'",
    r"x = '\u00e9{0}'",
    r"x = '\\{0}'",
)


@given(st.sampled_from(HOLES), FOUND)
def test_python_that_parsed_still_parses(hole: str, found: str) -> None:
    text = hole.format(found)
    ast.parse(text)
    redacted, spans = redact(text, ALL)
    ast.parse(redacted)
    assert spans or hole.startswith(("x = '\\", "x = r'\\"))


def test_escape_before_an_address_stays() -> None:
    assert redact(r"x = '\nanna@home.org'", ALL)[0] == r"x = '\nREDACTED_EMAIL'"


def test_placeholders_are_plain_words() -> None:
    names = ["email", "ip", "private_key", *SECRETS]
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", placeholder(name)) for name in names)


@given(st.text(max_size=200))
def test_any_text_is_read_without_failing_and_twice_changes_nothing_more(text: str) -> None:
    once, _ = redact(text, ALL)
    assert redact(once, ALL)[0] == once


PIECES = st.sampled_from(
    [
        *SECRETS.values(),
        KEY,
        "anna@home.org",
        "93.184.216.34",
        "x",
        "@",
        ":",
        "aws ",
        "://u:",
        "1.2",
    ]
)
BATCH = st.lists(st.lists(PIECES, max_size=3).map("".join), max_size=6)


@given(BATCH)
def test_text_that_is_no_suspect_has_nothing_to_redact(texts: list[str]) -> None:
    found = suspects(texts)
    assert all(not redact(text, ALL)[1] for i, text in enumerate(texts) if i not in found)


@pytest.mark.parametrize(
    "text",
    [
        "git clone git@example.org:team/tool.git",
        "git clone git@github.com:team/tool",
        "url = ssh://git@gitlab.com/team/tool.git",
        "scp ann@build.example.org:/srv/out/a.txt .",
        "rsync -a deploy@web.mycompany.com:site/ .",
    ],
)
def test_repositories_and_remote_files_stay(text: str) -> None:
    assert redact(text, KINDS)[0] == text


def test_an_address_before_a_colon_goes() -> None:
    assert redact("Ask ann@example.org: she knows", KINDS)[0] == "Ask REDACTED_EMAIL: she knows"


@pytest.mark.parametrize(
    "text",
    [
        "assembly version 4.8.12.100",
        'AssemblyVersion("4.8.12.100")',
        "pip install tool==4.8.12.100",
        "tool-4.8.12.100",
        "User-Agent: tool/4.8.12.100",
        "upgrade to 4.8.12.100",
        "4.8.12.100-rc1",
        "192.0.2.17 and 198.51.100.8 and 203.0.113.9 and 2001:db8:0:0:1::5",
    ],
)
def test_four_part_versions_and_documentation_addresses_stay(text: str) -> None:
    assert redact(text, KINDS)[0] == text


def test_a_public_address_in_a_url_goes() -> None:
    assert redact("http://93.184.216.34/a", KINDS)[0] == "http://REDACTED_IP/a"

"""Formats of tokens and passwords that are distinct enough to be recognized in any text.

Each is a regular expression with literals that all its matches contain, so a text without the
literals is skipped quickly. They are the issuers' published formats, as detect-secrets, gitleaks
and TruffleHog list them. Entropy and keyword detectors are left out, because on source code most of
their findings are not secrets. To add a format, add one line here.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class SecretFormat:
    """One kind of secret; a group `secret` of the pattern is redacted alone, else the match."""

    name: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]


def _format(name: str, literals: str, pattern: str) -> SecretFormat:
    return SecretFormat(name, tuple(literals.split()), re.compile(pattern))


# a token does not begin after a character that it could contain, except after an escape such as \\n
_B, _E = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))", r"(?![A-Za-z0-9_-])"

FORMATS = (
    _format("aws_key_id", "AKIA ASIA ABIA ACCA", rf"{_B}A(?:KIA|SIA|BIA|CCA)[0-9A-Z]{{16}}{_E}"),
    _format(
        "aws_secret",
        "aws AWS",
        r"(?i:aws)[^\n]{0,40}?[\"'=:\s](?P<secret>(?=[A-Za-z0-9/+]*[0-9/+])[A-Za-z0-9/+]{40})"
        r"(?![A-Za-z0-9/+=])",
    ),
    _format("github", "ghp_ gho_ ghu_ ghs_ ghr_", rf"{_B}gh[pousr]_[A-Za-z0-9]{{36,251}}{_E}"),
    _format("github", "github_pat_", rf"{_B}github_pat_[A-Za-z0-9_]{{50,250}}{_E}"),
    _format("gitlab", "glpat- gldt- glrt-", rf"{_B}gl(?:pat|dt|rt)-[A-Za-z0-9_-]{{20,64}}{_E}"),
    _format("slack", "xox", rf"{_B}xox[abeoprs]-[A-Za-z0-9-]{{10,250}}"),
    _format(
        "slack_webhook",
        "hooks.slack.com/",
        r"hooks\.slack\.com/(?:services|workflows)/(?P<secret>[A-Za-z0-9/_+]{20,})",
    ),
    _format("stripe", "k_live_", rf"{_B}[sr]k_live_[A-Za-z0-9]{{16,250}}{_E}"),
    _format("google", "AIza", rf"{_B}AIza[A-Za-z0-9_-]{{35}}{_E}"),
    _format("google_oauth", "GOCSPX-", rf"{_B}GOCSPX-[A-Za-z0-9_-]{{28}}{_E}"),
    _format("google_oauth", "ya29.", rf"{_B}ya29\.[A-Za-z0-9_-]{{30,}}"),
    _format("jwt", "eyJ", rf"{_B}eyJ[\w-]{{10,2000}}\.eyJ[\w-]{{10,2000}}\.[\w-]{{10,2000}}"),
    _format("npm", "npm_", rf"{_B}npm_[A-Za-z0-9]{{36}}{_E}"),
    _format("pypi", "pypi-", rf"{_B}pypi-AgE[A-Za-z0-9_-]{{50,}}"),
    _format("huggingface", "hf_", rf"{_B}hf_[A-Za-z]{{34}}{_E}"),
    _format("openai", "sk-", rf"{_B}sk-[A-Za-z0-9_-]{{10,150}}T3BlbkFJ[A-Za-z0-9_-]{{10,150}}"),
    _format("anthropic", "sk-ant-", rf"{_B}sk-ant-[A-Za-z0-9_-]{{20,}}"),
    _format("sendgrid", "SG.", rf"{_B}SG\.[A-Za-z0-9_-]{{22}}\.[A-Za-z0-9_-]{{43}}{_E}"),
    _format("twilio", "SK AC", rf"{_B}(?:SK|AC)[0-9a-f]{{32}}{_E}"),
    _format("mailchimp", "-us", rf"{_B}[0-9a-f]{{32}}-us[0-9]{{1,2}}{_E}"),
    _format("square", "sq0", rf"{_B}sq0(?:atp|csp)-[A-Za-z0-9_-]{{22,43}}{_E}"),
    _format("telegram", ":AA", rf"{_B}[0-9]{{8,10}}:AA[A-Za-z0-9_-]{{33}}{_E}"),
    _format("digitalocean", "_v1_", rf"{_B}do[opr]_v1_[0-9a-f]{{64}}{_E}"),
    _format("shopify", "shpat_ shpca_ shppa_ shpss_", rf"{_B}shp[acps][ats]_[0-9a-fA-F]{{32}}{_E}"),
    _format("azure_storage", "AccountKey=", r"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)"),
    _format("artifactory", "AKC", rf"{_B}AKC[A-Za-z0-9]{{60,80}}{_E}"),
    _format("docker", "dckr_pat_", rf"{_B}dckr_pat_[A-Za-z0-9_-]{{27}}{_E}"),
    _format("databricks", "dapi", rf"{_B}dapi[0-9a-f]{{32}}{_E}"),
    _format(
        "password_in_url",
        "://",
        r"[a-z][a-z0-9+.-]{1,20}://[^\s:@/\"'{}<>$%()]{1,64}:(?P<secret>[^\s:@/\"'{}<>$%()*]{3,128})"
        r"@(?!(?:[\w.-]+\.)?example\.)[A-Za-z0-9.-]+",
    ),
)  # fmt: skip

# a header alone, as in code that parses keys, is not a key
PRIVATE_KEY_BLOCK = SecretFormat(
    "private_key",
    ("PRIVATE KEY",),
    re.compile(
        r"-----BEGIN [A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?!-----)[\s\S]){0,400}?[A-Za-z0-9+/=]{40}(?:(?!-----)[\s\S]){0,20000}"
        r"(?:-----END [A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)?-----)?"
    ),
)

"""The base model's license: name, evidence and files. Merged weights inherit it."""

import json
import re
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path

from tasks.core.models.model_folder import is_license

LICENCE_FILE = "licence.json"
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)


def write_licence(name: str, evidence: str, origin: str, files: Iterable[Path], out: Path) -> None:
    """Write licence.json; `name` is "" if the license is unknown.

    It holds the texts: beside the weights, a corrected notice would change what `train` reads.
    """
    texts = {file.name: file.read_bytes().decode("utf-8", "surrogateescape") for file in files}
    content = {"licence": name, "evidence": evidence, "base": origin, "files": texts}
    (out / LICENCE_FILE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def licence_of(files: Iterable[Path]) -> tuple[str, str]:
    """(name, evidence) from a model card or a package's METADATA; ("", "") without either."""
    for file in files:
        if file.name == "README.md":
            name = _from_card(file.read_text(encoding="utf-8", errors="replace"))
            if name:
                return name, "front matter of the model card"
        if file.name == "METADATA":
            headers = HeaderParser().parsestr(file.read_text(encoding="utf-8", errors="replace"))
            name = headers.get("License-Expression") or headers.get("License") or ""
            if name and "\n" not in name:
                return name, f"metadata of the package {headers.get('Name', '')}"
    return "", ""


def _from_card(text: str) -> str:
    """`license_name` of a model card, else its `license` unless that is "other"."""
    found = _FRONT_MATTER.match(text)
    fields = dict(
        re.findall(r"^(license(?:_name)?):[ \t]*(\S.*?)[ \t]*$", found[1] if found else "", re.M)
    )
    name = fields.get("license_name") or fields.get("license", "")
    return "" if name in ("other", "unknown") else name.strip("'\"")


def licence_files(files: Iterable[Path]) -> list[Path]:
    """The licenses and notices among `files`, one for each name."""
    return list({file.name: file for file in files if is_license(file.name)}.values())

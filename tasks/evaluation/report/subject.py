"""The subject of a report: which model was tuned on which data, by which profile, when and where.

For the reader only: nothing here enters an output of the stage, so that the date may be shown.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tasks.core.cache import manifest as manifests
from tasks.core.cache.manifest import Manifest
from tasks.core.models.device import Device, pick_device


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        title: Model and data.
        facts: (Name, value), such as ("Profile", "cpu_demo").
    """

    title: str = ""
    facts: tuple[tuple[str, str], ...] = ()


UNKNOWN = Subject()


def read_subject(paths: Mapping[str, Path], profile: str, device: Device) -> Subject:
    """The subject, from the artifacts that an evaluation used.

    Args:
        paths: "stage.entry" -> file or folder.
        profile: Name or file of the run's profile; "" unknown.
        device: Setting of the device.
    """
    folders = {name.partition(".")[0]: path.parent for name, path in paths.items()}
    made = {stage: m for stage, folder in folders.items() if (m := manifests.read(folder))}
    model, sources = _model(made.get("base")), _sources(made.get("ingest"))
    title = f"{model} tuned on {sources}" if model and sources else model
    facts = {
        "Model": _line(made.get("base"), model),
        "Profile": Path(profile).stem if profile else "",
        "Data": _line(made.get("ingest"), sources),
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Hardware": _hardware(device),
    }
    return Subject(title, tuple((name, value) for name, value in facts.items() if value))


def _model(base: Manifest | None) -> str:
    """Short name of the base model."""
    config = _config(base, "base")
    source = config.get("path") or config.get("gguf") or config.get("hub_id") or ""
    return str(source).rpartition("/")[2].removesuffix(".gguf")


def _sources(ingest: Manifest | None) -> str:
    """Names of the sources."""
    sources = _config(ingest, "ingest").get("sources", ())
    names = [str(s.get("name") or s.get("path") or s.get("kind")) for s in sources]
    return ", ".join(Path(name).name for name in names)


def _line(manifest: Manifest | None, name: str) -> str:
    """A name with the summary of the artifact."""
    line = str(manifest.summary.get("line", "")) if manifest else ""
    return f"{name} ({line})" if name and line else name or line


def _config(manifest: Manifest | None, section: str) -> dict[str, Any]:
    """Settings of a section, from the parts of the key."""
    config = manifest.parts.get("config", {}) if manifest else {}
    own = f"{section}."
    return {name.removeprefix(own): v for name, v in config.items() if name.startswith(own)}


def _hardware(setting: Device) -> str:
    """The device that measured, such as "NVIDIA H100" or "x86_64 CPU, 2 cores"."""
    device = pick_device(setting)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"

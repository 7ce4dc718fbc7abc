from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import errors

from tasks.base import hub
from tasks.core.errors import PipelineError
from tasks.core.progress import sink

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def response(kind: type[Exception]) -> Exception:
    if issubclass(kind, errors.HfHubHTTPError):
        return kind("no", response=httpx.Response(404, request=httpx.Request("GET", "https://h")))  # type: ignore[call-arg]
    return kind("no")


@pytest.mark.parametrize(
    ("kind", "problem", "remedy"),
    [
        (errors.GatedRepoError, "a license that you have to accept", "hf auth login"),
        (errors.RevisionNotFoundError, "has no commit", r"base\.revision"),
        (errors.RepositoryNotFoundError, "has no model a/b", r"base\.hub_id"),
        (errors.LocalEntryNotFoundError, "can't be reached", r"base\.path"),
        (errors.OfflineModeIsEnabled, "can't be reached", r"base\.path"),
    ],
)
def test_every_failure_of_a_download_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], problem: str, remedy: str
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise response(kind)

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(PipelineError, match=rf"{problem}[\s\S]*\n.*{remedy}"):
        hub.download("a/b", COMMIT)


def test_download_requests_the_pinned_commit_and_reports_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}
    seen: list[tuple[float, float | None]] = []

    class Watcher:
        def update(self, label: str, done: float, total: float | None, note: str) -> None:
            seen.append((done, total))

        def message(self, text: str) -> None: ...

    def fetch(hub_id: str, **given: Any) -> str:
        asked.update(given)
        bar = given["tqdm_class"](total=0, unit="B")
        bar.total += 10
        bar.update(4)
        given["tqdm_class"](total=3, desc="files").update(1)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    with sink(Watcher()):
        assert hub.download("a/b", COMMIT) == tmp_path
    assert asked["revision"] == COMMIT
    assert not [p for p in asked["allow_patterns"] if p.endswith((".bin", ".py")) or p == "*"]
    assert seen == [(4, 10)]

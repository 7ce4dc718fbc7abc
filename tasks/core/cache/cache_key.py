"""Cache key of a stage: everything that can change its output, and nothing else.

key = sha256(canonical JSON of {stage, schema, config slice, digests of inputs, of sources, of code,
versions of env}).
Code enters without the names of modules: moving one changes no key.
Inputs enter by the digest of the output that is read, not by the key that made it: early cut-off.
The manifest keeps the unhashed parts, so that a difference can be named.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.core.cache.code_digest import Modules, closure, code_digest
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.package_version import PYTHON, version
from tasks.core.settings.config import Config, View
from tasks.core.stage import Stage

Parts = dict[str, Any]


def own_parts(
    stage: Stage,
    config: Config,
    digests: DigestCache,
    digest_of: Callable[[Path], str] | None = None,
    modules: Modules | None = None,
) -> Parts:
    """The parts of a stage's key that don't depend on other stages: config, sources, code, env.

    Args:
        stage: The stage.
        config: All settings.
        digests: Caches digests of files.
        digest_of: Digests the files of the sources; by default `digests` does.
        modules: Shared between the stages of a plan; see `closure`.

    Raises:
        PipelineError: From the stage's `sources`, if a path in the settings does not exist.
    """
    view = View(config, stage.reads, stage.name)
    sources = stage.load_sources()
    return {
        "stage": stage.name,
        "schema": stage.schema,
        "config": view.slice(),
        "sources": dict(sorted(sources(view, digest_of or digests.digest).items()))
        if sources
        else {},
        "code": closure(stage.run, digests, modules=modules),
        "env": {name: version(name) for name in sorted({*stage.env, PYTHON})},
    }


def moved_since(stage: Stage, parts: Parts, digests: DigestCache) -> list[str]:
    """Modules and packages of a stage that changed since its key was computed.

    A long run imports the code of its later stages hours after their keys were computed.
    """
    code = closure(stage.run, digests)
    env = {name: version.__wrapped__(name) for name in parts["env"]}
    return [
        name
        for now, then in ((code, parts["code"]), (env, parts["env"]))
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    ]


def full_parts(own: Parts, inputs: Mapping[str, str]) -> Parts:
    """Own parts and the digests of the inputs."""
    return {**own, "inputs": dict(sorted(inputs.items()))}


def key_of(parts: Parts) -> str:
    """sha256 of the parts, hex; of the code without the names of modules."""
    hashed = {**parts, "code": code_digest(parts.get("code", {}))}
    return hashlib.sha256(canonical(hashed).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

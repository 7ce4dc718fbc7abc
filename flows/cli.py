"""The command line `finetune`. Thin: it reads arguments, calls one function, and turns failures
into exit codes.

0 done or nothing to do; 10 `plan` has work; 2 the user's mistake (two lines: problem, remedy); 1 a
stage failed; 130 Ctrl-C.
"""

import argparse
import errno
import sys
from collections.abc import Callable, Sequence

from flows import profiles
from flows.session import Request
from tasks.core.cache.plan import Selection
from tasks.core.errors import PipelineError, StageError
from tasks.pipeline import PIPELINE

OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
STAGES = tuple(stage.name for stage in PIPELINE)
Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except PipelineError as error:
        print(f"error: {error.problem}\n{error.remedy}", file=sys.stderr)
        return 2
    except StageError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, run again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        remedy = "Make room, or make it writable, and try again."
        print(f"error: {error.filename or ''}: {error.strerror}\n{remedy}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    top = argparse.ArgumentParser(
        prog="finetune",
        description="Fine-tune a code model with 4-bit LoRA; only what changed runs again.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    plan = add("plan", _plan, "what would run, why, and what it costs")
    run = add("run", _run, "run what changed")
    for sub in (plan, run):
        _selection(sub)
        sub.add_argument("--json", action="store_true", help="machine-readable output")
    rerun = add("rerun", _rerun, "run these stages again, even if nothing changed")
    rerun.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    explain = add("explain", _explain, "the full story of one stage's verdict")
    explain.add_argument("stage", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    show = add("show", _show, "what the artifacts hold")
    show.add_argument("stage", nargs="?", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    show.add_argument("--row", metavar="N", help="row number (or row id) of the stage's main table")
    adopt = add("adopt", _adopt, "keep what you changed in an artifact by hand")
    accept = add("accept", _accept, "declare a change of code or packages harmless for a stage")
    for sub in (adopt, accept):
        sub.add_argument("stage", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    accept.add_argument("--undo", action="store_true", help="take it back")
    for sub in (rerun, explain, show, adopt, accept):
        _settings(sub)
    _upkeep(add)
    _models(add)
    _operations(add)
    add("profiles", _profiles, "the profiles that come with the project")
    return top


def _upkeep(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    verify = add("verify", _verify, "check every artifact against its manifest")
    verify.add_argument("--deep", action="store_true", help="read every byte (sha256)")
    gc = add("gc", _gc, "remove artifacts that no recent run rests on")
    gc.add_argument("--keep-last", type=int, default=3, metavar="N", help="default: %(default)s")
    gc.add_argument("--keep-days", type=float, default=7, metavar="D", help="default: %(default)s")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    pin = add("pin", _pin, "keep what a run rests on, whatever gc is told")
    pin.add_argument("run", metavar="RUN", help="id, its beginning, or -1 for the last")
    pin.add_argument("--undo", action="store_true", help="no longer")
    diff = add("diff", _diff, "what differs between two runs, and which metrics moved")
    diff.add_argument("runs", nargs=2, metavar="RUN", help="id, its beginning, or -1 for the last")


def _models(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    promote = add("promote", _promote, "make the merged model of these settings the champion")
    _settings(promote)
    promote.add_argument(
        "--force",
        dest="forced",  # `force` is a selection of stages elsewhere
        action="store_true",
        help="although it is not shown to be better; recorded",
    )
    rollback = add("rollback", _rollback, "take the last promotion back")
    for sub in (promote, rollback):
        sub.add_argument("--because", default="", metavar="TEXT", help="the reason; recorded")
    champion = add("champion", _champion, "the promoted model, and every change of it")
    champion.add_argument("--json", action="store_true", help="machine-readable output")
    attempt = add("try", _try, "one answer of the champion, the newest adapter or a folder")
    _settings(attempt)
    attempt.add_argument("text", help="the instruction; - reads it from standard input")
    attempt.add_argument("--input", default="", metavar="TEXT", help="what it is about")
    attempt.add_argument(
        "--from",
        dest="source",
        metavar="champion|adapter|FOLDER",
        help="what answers; default: the champion, else the adapter of these settings",
    )
    attempt.add_argument("--raw", action="store_true", help="TEXT is the prompt itself")
    for flag, kind, default, text in (
        ("--max-new-tokens", int, 512, "length of the answer"),
        ("--temperature", float, 0.0, "0: the likeliest token each time"),
        ("--top-p", float, 1.0, "share of the probability that is drawn from"),
        ("--seed", int, 0, "of the draws"),
    ):
        attempt.add_argument(
            flag, type=kind, default=default, metavar="N", help=f"{text}; default: %(default)s"
        )


def _operations(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    serve = add("serve", _serve, "Prefect server, pool, deployments and worker, until Ctrl-C")
    serve.add_argument("--port", type=int, default=4200, help="default: %(default)s")
    doctor = add("doctor", _doctor, "find what keeps runs from running, and the remedy")
    doctor.add_argument("--fix", action="store_true", help="apply the safe remedies")
    doctor.add_argument("--json", action="store_true", help="machine-readable output")


def _settings(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--profile", default=profiles.DEFAULT, metavar="NAME|FILE", help="default: %(default)s"
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="section.field=value", dest="overrides"
    )


def _selection(sub: argparse.ArgumentParser) -> None:
    _settings(sub)
    for flag, text in (
        ("--only", "consider only this stage"),
        ("--force", "run it even if nothing changed"),
    ):
        sub.add_argument(
            flag,
            action="append",
            default=[],
            choices=STAGES,
            metavar="STAGE",
            help=f"{text} (repeatable)",
        )
    sub.add_argument(
        "--from",
        dest="start_from",
        choices=STAGES,
        metavar="STAGE",
        help="consider this stage and all after it",
    )


def _request(options: argparse.Namespace) -> Request:
    """The request in the options of a command; commands without a selection ask for everything."""
    selection = Selection(
        tuple(getattr(options, "only", ())),
        getattr(options, "start_from", None),
        tuple(getattr(options, "force", ())),
    )
    return Request(options.profile, tuple(options.overrides), selection)


def _plan(options: argparse.Namespace) -> int:
    from flows.commands.plan import print_plan

    return print_plan(_request(options), options.json)


def _run(options: argparse.Namespace) -> int:
    from flows.commands.run import run_here

    return run_here(_request(options), options.json)


def _rerun(options: argparse.Namespace) -> int:
    options.only = options.force = options.stages
    options.json = False
    return _run(options)


def _explain(options: argparse.Namespace) -> int:
    from flows.commands.plan import print_explanation

    return print_explanation(_request(options), options.stage)


def _show(options: argparse.Namespace) -> int:
    from flows.commands.show.artifacts import show

    return show(_request(options), options.stage, options.row)


def _adopt(options: argparse.Namespace) -> int:
    from flows.commands.artifacts import adopt

    return adopt(_request(options), options.stage)


def _accept(options: argparse.Namespace) -> int:
    from flows.commands.artifacts import accept

    return accept(_request(options), options.stage, options.undo)


def _verify(options: argparse.Namespace) -> int:
    from flows.commands.artifacts import verify

    return verify(options.deep)


def _gc(options: argparse.Namespace) -> int:
    from flows.commands.artifacts import collect

    return collect(options.keep_last, options.keep_days, options.dry_run)


def _pin(options: argparse.Namespace) -> int:
    from flows.commands.artifacts import pin

    return pin(options.run, options.undo)


def _diff(options: argparse.Namespace) -> int:
    from flows.commands.artifacts import diff

    return diff(*options.runs)


def _promote(options: argparse.Namespace) -> int:
    from flows.commands.champion import promote

    return promote(_request(options), options.forced, options.because)


def _rollback(options: argparse.Namespace) -> int:
    from flows.commands.champion import rollback

    return rollback(options.because)


def _champion(options: argparse.Namespace) -> int:
    from flows.commands.champion import show

    return show(options.json)


def _serve(options: argparse.Namespace) -> int:
    from flows.orchestration.serve import serve

    return serve(options.port)


def _doctor(options: argparse.Namespace) -> int:
    from flows.commands.doctor.command import doctor

    return doctor(options.fix, options.json)


def _try(options: argparse.Namespace) -> int:
    from flows.commands.try_model import try_out
    from tasks.evaluation.generation.sampling import Sampling

    return try_out(
        _request(options),
        options.source,
        options.text,
        options.input,
        options.raw,
        options.max_new_tokens,
        Sampling(options.temperature, options.top_p, options.seed),
    )


def _profiles(options: argparse.Namespace) -> int:
    for name in profiles.names():
        default = "  (default)" if name == profiles.DEFAULT else ""
        print(f"{name:<24}{profiles.headline(name)}{default}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

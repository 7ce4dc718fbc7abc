"""Command line `finetune`: maps command names to functions, and failures to exit codes.

The module of a command is imported only when that command is used, so that `finetune plan` does
not pay for the imports of the others.

Exit codes: 0 success or nothing to do; 10 `plan` found work; 2 user error (two lines: problem and
remedy); 1 a stage failed; 128 + number of the signal: Ctrl-C, SIGTERM or SIGHUP ended the command.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper

import click

from flows import terminal
from tasks.core.errors import PipelineError, StageError
from tasks.core.stage_log import hide_notices
from tasks.core.system.home import keep_home, short_path
from tasks.core.system.interrupts import StopHandler, ignore_stop_signals, install_for_process

DISTRIBUTION = "finetune-pipeline"
COMMANDS = {  # name -> module:function, in the order of the help page
    "init": "flows.commands.init.command:init",
    "plan": "flows.commands.plan:plan",
    "run": "flows.commands.run:run",
    "rerun": "flows.commands.run:rerun",
    "sweep": "flows.commands.sweep:sweep",
    "explain": "flows.commands.plan:explain",
    "show": "flows.commands.show.artifacts:show",
    "adopt": "flows.commands.artifacts:adopt",
    "accept": "flows.commands.artifacts:accept",
    "verify": "flows.commands.artifacts:verify",
    "gc": "flows.commands.artifacts:gc",
    "runs": "flows.commands.runs:list_runs",
    "pin": "flows.commands.runs:pin",
    "diff": "flows.commands.runs:diff",
    "promote": "flows.commands.champion:promote",
    "rollback": "flows.commands.champion:rollback",
    "champion": "flows.commands.champion:champion",
    "try": "flows.commands.try_model.command:try_model",
    "serve": "flows.commands.serve:serve",
    "export": "flows.commands.delivery.export:export",
    "serve-model": "flows.commands.delivery.serve_model:serve_model",
    "doctor": "flows.commands.doctor.command:doctor",
    "profiles": "flows.commands.profiles:profiles",
}
# errors of the machine, which the user can solve; any other OSError is a bug
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class LazyCommands(click.Group):
    """Imports a command when it is looked up, and turns failures into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; a name like it is suggested."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if close := get_close_matches(args[0], COMMANDS, 1):
                ctx.fail(f"{error.message} Did you mean {close[0]!r}?")
            raise

    def invoke(self, ctx: click.Context) -> int:
        """Run the command and return its exit code."""
        try:
            code: int = super().invoke(ctx)
        except KeyboardInterrupt as stop:
            return _stopped(getattr(stop, "number", signal.SIGINT))
        except Exception as error:
            stop_handler = ctx.find_object(StopHandler)
            if stop_handler and stop_handler.number:  # the failure is a consequence of the signal
                return _stopped(stop_handler.number)
            return _exit_code(error)
        return code


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # slow to import

        click.echo(f"finetune {version(DISTRIBUTION)}")
        context.exit()


def _exit_code(error: Exception) -> int:
    """Report an error of the user or of the machine; raises anything else again: it is a bug."""
    if isinstance(error, PipelineError):
        return _fail(2, error.problem, error.remedy)
    if isinstance(error, StageError):
        return _fail(1, str(error))
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()  # the reader of our output is gone; nothing is left to report to
        return 0
    if isinstance(error, SyntaxError) and error.filename:  # code of a stage that was edited
        return _fail(
            2,
            f"{short_path(error.filename)}, line {error.lineno}: {error.msg}",
            "Correct the file; with git, `git diff` shows what was edited.",
        )
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        problem = f"{error.filename or ''}: {error.strerror}"
        return _fail(2, problem, "Free disk space or fix the permissions, and try again.")
    raise error


@click.group(
    cls=LazyCommands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
@click.pass_context
def finetune(context: click.Context) -> None:
    """Fine-tune a code model with 4-bit LoRA; only stages whose inputs changed run again.

    Start with `finetune init` in the folder of your code or data.

    \b
    Environment variables:
      FINETUNE_PROFILE  profile of commands without --profile
      FINETUNE_HOME     folder of artifacts/ and data/

    Exit codes: 0 success, 1 a stage failed, 2 wrong input or settings, 10 `plan` found work.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def process() -> int:
    """Run `main` as the whole process; stop signals end the command cleanly."""
    stop = install_for_process()
    try:
        code = main(stop=stop)
        stop.settled = True
    except BaseException:
        stop.settled = True
        if stop.number is None:
            raise
        code = _stopped(stop.number)
    ignore_stop_signals()  # Python itself sets the default actions again while it shuts down
    return code


def main(arguments: Sequence[str] | None = None, stop: StopHandler | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: None: those of this process.
        stop: Handler of stop signals, if the process has one.
    """
    terminal.print_any_text()
    hide_notices()
    # it reads the metadata of all installed packages, a tenth of the time of `finetune plan`
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    keep_home()
    if isinstance(sys.stdout, TextIOWrapper):  # a file name outside of the encoding is not an error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = finetune.main(arguments, prog_name="finetune", standalone_mode=False, obj=stop)
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else "finetune"
        return _fail(2, " ".join(error.format_message().split()), f"See `{place} --help`.")
    finally:
        terminal.restore()
    return code or 0


def _stopped(number: int) -> int:
    """Report the end by a signal; the terminal may be gone."""
    with contextlib.suppress(OSError):
        click.echo("stopped; finished stages are kept, run again to continue", err=True)
    return 128 + number


def _fail(code: int, problem: str, remedy: str = "") -> int:
    terminal.show(f"error: {problem}" + (f"\n{remedy}" if remedy else ""), sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(process())

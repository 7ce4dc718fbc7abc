"""`finetune sweep`: train variants of the settings, compare them on the validation split, and
evaluate the best one on the test split.

Every trial is a run of the flow, so that a repeated command continues: what is finished is a cache
hit, and an interrupted training resumes from its checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from flows import messages, profiles
from flows.commands import options
from flows.commands.run import run_flow
from flows.plan_notes.forecast import forecast
from flows.session import Request, Session, open_session, passed_on
from flows.store_access import root
from flows.sweep import trials
from flows.sweep.grid import Variant, read_grid
from flows.sweep.trials import LAST, SweepTrial
from tasks.core.cache.cache_key import key_of
from tasks.core.cache.decision import HIT, Selection
from tasks.core.cache.manifest import Manifest, read
from tasks.core.errors import PipelineError, TrainingError
from tasks.core.settings import config as configs
from tasks.core.settings.train import TrainSettings
from tasks.core.system.atomic_write import write_text

FOLDER = "sweeps"  # below the artifacts
MAX_TRAININGS = 16


class Sweep:
    """One sweep: its trials, run one after another, and its page.

    Args:
        request: Profile and overrides, those with several values among them.
        seeds: Trainings of each variant.
        halving: Whether the better half continues with twice the steps.
    """

    def __init__(self, request: Request, seeds: int, halving: bool) -> None:
        from flows.sweep.results import SweepResults

        self._profile = profiles.locate(request.profile)
        self._request = request
        grid = read_grid(self._profile, request.overrides)
        trials.check_options(grid.fields, seeds, halving)
        own = configs.load(self._profile, grid.fixed).train
        planned = trials.rounds(len(grid.variants), halving)
        self._results = SweepResults(grid, planned, trials.seeds_of(own, seeds))
        self._console = Console(soft_wrap=True)
        name = key_of({"profile": str(self._profile), "set": sorted(request.overrides)})[:8]
        self.page = root() / FOLDER / f"{name}.html"

    def announce(self, most: int) -> None:
        """Print the number of trainings and their cost.

        Raises:
            PipelineError: More than `most` trainings would run.
        """
        results, grid = self._results, self._results.grid
        variants, seeds = len(grid.variants), len(results.seeds)
        first = results.planned[0].share
        with self._console.status("planning"):
            planned = [
                self._cost(trial) for v in grid.variants for trial in results.trials(v, first)
            ]
        total = sum(one.count for one in results.planned) * seeds
        done = sum(cost == 0 for cost in planned)
        known = max((cost for cost in planned if cost), default=None)
        steps = sum(one.count * one.share for one in results.planned) * seeds / first - done
        cost = (
            "all in the cache"
            if done == total
            else "cost unknown until one has run on this machine"
        )
        if known:
            cost = f"about {messages.duration(known * steps)}, {messages.duration(known)} for one"
        text = f"{variants} variants, {total} trainings, {done} of them done; {cost}"
        if total - done > most:
            raise PipelineError(
                f"more than {most} trainings: {text}",
                f"Sweep fewer values, or allow it: --max-trainings {total - done}.",
            )
        self._say(text + ".")

    def compare(self) -> None:
        """Run the trials of all rounds.

        Raises:
            PipelineError: No variant of a round could finish, or a run failed for a reason that is
                not its settings.
        """
        results = self._results
        left: Sequence[Variant] = results.grid.variants
        for number, one in enumerate(results.planned):
            left = left[: one.count]
            waiting = list(left)
            while waiting:
                variant = waiting[0]
                if number == 0:
                    variant = results.grid.next(results.losses(one.share), waiting)
                waiting.remove(variant)
                for trial in results.trials(variant, one.share):
                    self._run_trial(trial)
                self._write_page()
            left = results.ranked(one.share)
            if not left:
                raise PipelineError(
                    f"no variant could be trained: {'; '.join(set(results.failed.values()))}",
                    "Sweep other values.",
                )

    def conclude(self) -> None:
        """Evaluate the best variant on the test split, and print the result."""
        results = self._results
        best = results.best
        # the first seed: choosing among seeds by their losses would flatter the variant
        trial = SweepTrial(best, results.seeds[0])
        overrides = trial.overrides(results.grid.fixed, self._train(best))
        self._say(f"\nbest: {best.label}; on the test split:")
        made, folders = self._run(
            Request(self._request.profile, overrides, Selection(until=LAST)), "sweep: the best"
        )
        results.winner = folders[LAST]
        self._write_page()
        self._say(f"{messages.summary_line(made[LAST])}\n")
        self._print_table()
        for note in results.grid.ends(best):
            self._say(note)
        given = " ".join(f"--set {_quoted(o)}" for o in overrides)
        self._say(
            f"page:  {self.page}\nmerge: finetune run --profile {self._request.profile} {given}"
        )

    def _run_trial(self, trial: SweepTrial) -> None:
        from flows.sweep.results import Result

        grid = self._results.grid
        self._say(f"\n{trial.name}")
        request = trial.request(self._request.profile, grid.fixed, self._train(trial.variant))
        try:
            made, folders = self._run(request, f"sweep: {trial.name}")
        except TrainingError as error:  # a result, too: other variants may work
            self._results.failed[trial] = error.problem
            self._say(f"  {error.problem}")
            return
        result = self._results.found[trial] = Result.read(made, folders)
        self._say(f"  validation loss {result.losses.loss:.4f}")

    def _run(self, request: Request, name: str) -> tuple[dict[str, Manifest], dict[str, Path]]:
        """Run the flow, unless all of its artifacts exist; its artifacts by stage."""
        with open_session(request, to_write=True) as session:
            if all(plan.decision == HIT for plan in session.plans):
                self._say("  in the cache")
                made = {p.stage.name: p.manifest for p in session.plans if p.manifest}
                return made, {n: session.store.folder(n, m.key) for n, m in made.items()}
            with passed_on(request, session):
                folders = run_flow(self._console, request, name)
        found = {stage: Path(folder) for stage, folder in folders.items()}
        return {n: m for n, folder in found.items() if (m := read(folder))}, found

    def _cost(self, trial: SweepTrial) -> float | None:
        """Expected seconds of a trial; 0 if it is done, None if unknown."""
        grid = self._results.grid
        request = trial.request(self._request.profile, grid.fixed, self._train(trial.variant))
        with open_session(request) as session:
            return _expected_seconds(session)

    def _train(self, variant: Variant) -> TrainSettings:
        overrides = (*self._results.grid.fixed, *variant.overrides)
        return configs.load(self._profile, overrides).train

    def _write_page(self) -> None:
        from flows.sweep.page import render

        write_text(self.page, render(self._results, self._profile, self.page.parent))

    def _print_table(self) -> None:
        from flows.sweep.page import table

        self._say(table(self._results))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


def _expected_seconds(session: Session) -> float | None:
    """Expected seconds of a plan; 0 if nothing is to do, None if the training is unknown."""
    if all(plan.decision == HIT for plan in session.plans):
        return 0.0
    expected = {plan.stage.name: plan.expected_seconds for plan in session.plans}
    if (training := forecast(session)) and training.seconds:
        expected["train"] = training.seconds
    known = [seconds for seconds in expected.values() if seconds]
    return sum(known) if expected["train"] is not None else None


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


@click.command
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=click.IntRange(1, 20),
    help="Trainings of each variant, each with its own seed.",
)
@click.option(
    "--halving",
    is_flag=True,
    help="Train all for a part of the steps, the better half for twice as many, and so on.",
)
@click.option(
    "--max-trainings",
    default=MAX_TRAININGS,
    show_default=True,
    type=click.IntRange(1),
    help="Refuse to start more trainings than this.",
)
@options.takes_settings
def sweep(request: Request, seeds: int, halving: bool, max_trainings: int) -> int:
    """Train variants, compare them, and evaluate the best.

    For example: finetune sweep --set train.learning_rate=1e-4,2e-4,5e-4

    A value list makes one variant of each value, several lists one of each combination. All
    variants are compared on the validation split; the best one is evaluated on the test split.
    """
    run = Sweep(request, seeds, halving)
    run.announce(max_trainings)
    run.compare()
    run.conclude()
    return 0

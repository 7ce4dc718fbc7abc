"""Prefect's pages in a real browser: start the nightly run, submit the form, cancel a run.

With Playwright and the Chromium of the distribution; Playwright downloads no browser of its own.
"""

import shutil

import pytest

from tests.conftest import write_small_profile
from tests.integration import servers

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1200)]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WORKER = ["prefect", "worker", "start", "--pool", servers.POOL]
END = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PATIENCE_MS = 90_000  # a busy machine


@pytest.fixture(scope="module")
def deployed(tiny_model, tmp_path_factory):
    """A server with its deployments and a worker: (environment, folder, profile)."""
    folder = tmp_path_factory.mktemp("browser")
    profile = write_small_profile(folder / "small.yaml", tiny_model)
    with servers.server(folder) as env:
        servers.set_up(env)
        for name, parameters in (
            ("nightly", {"profile": str(profile), "until": "ingest"}),
            ("local-gpu", {"profile": "cpu_demo", "until": "ingest"}),
        ):
            path = f"/deployments/{deployment_id(env, name)}"
            servers.api(env, path, {"parameters": parameters}, method="PATCH")
        with servers.process(WORKER, env, folder / "worker.log"):
            yield env, folder, profile


def deployment_id(env, name):
    return servers.api(env, f"/deployments/name/finetune/{name}")["id"]


@pytest.fixture
def page(deployed):
    """A page of Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # root has no sandbox of its own; the pages are those of a server on loopback
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1300, "height": 1300})
        opened.set_default_timeout(PATIENCE_MS)
        yield opened
        browser.close()


def address(env, path):
    return env["PREFECT_API_URL"].removesuffix("/api") + path


def newest_run(env, folder, name):
    """The newest run of a deployment that was not made by its schedule."""
    wanted = {"deployment_id": {"any_": [deployment_id(env, name)]}}

    def found():
        return [run for run in servers.flow_runs(env, **wanted) if not run["auto_scheduled"]]

    servers.wait_until(found, folder / "worker.log")
    return found()[-1]["id"]


def ended(env, folder, run):
    """A run, once it has ended."""

    def state():
        return servers.api(env, f"/flow_runs/{run}")

    servers.wait_until(lambda: state()["state_type"] in END, folder / "worker.log")
    return state()


def test_the_nightly_run_is_started_with_one_click_and_its_page_says_completed(deployed, page):
    env, folder, _ = deployed
    page.goto(address(env, f"/deployments/deployment/{deployment_id(env, 'nightly')}"))
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Quick run", exact=True).click()
    run = ended(env, folder, newest_run(env, folder, "nightly"))
    assert run["state_name"] == "Completed"
    assert set(servers.task_states(env, run["id"])) == {"base", "ingest"}
    page.goto(address(env, f"/runs/flow-run/{run['id']}"))
    page.get_by_text("Completed", exact=True).first.wait_for()
    page.get_by_text(run["name"], exact=True).first.wait_for()


def test_the_form_of_a_custom_run_passes_its_profile_to_the_flow(deployed, page):
    env, folder, profile = deployed
    page.goto(address(env, f"/deployments/deployment/{deployment_id(env, 'local-gpu')}/run"))
    page.get_by_text("Name of a profile").wait_for()
    form = page.url
    page.locator("textarea").first.fill(str(profile))
    for _ in range(10):  # on a busy machine, the form can ignore a click while it loads
        if page.url == form:
            page.get_by_role("button", name="Submit").click()
            page.wait_for_timeout(3000)
    assert page.url != form
    run = ended(env, folder, newest_run(env, folder, "local-gpu"))
    assert run["parameters"]["profile"] == str(profile)
    assert run["state_name"] == "Completed"


def test_cancel_on_the_page_of_a_run_stops_its_training_at_a_checkpoint(deployed, page):
    env, folder, profile = deployed
    parameters = {
        "profile": str(profile),
        "overrides": ["train.max_steps=5000", "evaluate.probe_problems=0"],
        "only": servers.STAGES[:6],
        "until": None,
    }
    path = f"/deployments/{deployment_id(env, 'local-gpu')}/create_flow_run"
    run = servers.api(env, path, {"parameters": parameters})["id"]
    scratch = "artifacts/.work/train-*/scratch"
    steps = lambda: any(  # noqa: E731 - asked again and again
        log.stat().st_size for log in (folder / "home").glob(f"{scratch}/metrics.jsonl")
    )
    servers.wait_until(steps, folder / "worker.log")
    page.goto(address(env, f"/runs/flow-run/{run}"))
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Confirm", exact=True).click()
    assert ended(env, folder, run)["state_type"] == "CANCELLED"
    page.get_by_text("Cancelled", exact=True).first.wait_for()
    assert list((folder / "home").glob(f"{scratch}/checkpoints/step-*"))

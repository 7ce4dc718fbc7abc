"""Runs the toy pipeline in a process that kills itself at the N-th step that touches the disk.

python kill_child.py ARTIFACTS SOURCE LOG N        (N = 0: never)
"""

import importlib.util
import os
import pathlib
import shutil
import signal
import sys

HERE = pathlib.Path(__file__).parent
artifacts, source, log, kill_at = sys.argv[1:]
steps = 0


def deadly(function):
    """`function`, with a SIGKILL before or after its work at the chosen step."""

    def wrapped(*arguments, **options):
        global steps  # noqa: PLW0603 - one counter for the process
        steps += 1
        if steps == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        steps += 1
        if steps == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


toy = load("toy")
toy.SOURCE = pathlib.Path(source)
pipeline = toy.Pipeline(pathlib.Path(artifacts))
for name in ("read", "sort", "join"):
    run = getattr(toy, name)

    def logged(config, inputs, work, run=run, name=name):
        summary = run(config, inputs, work)
        with pathlib.Path(log).open("a") as file:
            file.write(f"{name}\n")
        return summary

    setattr(toy, name, logged)
pathlib.Path.rename = deadly(pathlib.Path.rename)
pathlib.Path.write_text = deadly(pathlib.Path.write_text)
pathlib.Path.mkdir = deadly(pathlib.Path.mkdir)
os.fsync = deadly(os.fsync)
shutil.rmtree = deadly(shutil.rmtree)
pipeline.store.sweep()
pipeline.run()
print(steps)

"""The engine's process: what crosses the wire, and every way in which either end may die."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backends.local import process as module
from backends.local.failures import crash
from backends.local.job import Job, Stopped
from backends.local.options import LocalOptions
from backends.local.process import EngineProcess, environment
from generation.errors import EngineCrashed, EngineFailed, PlaygroundError
from generation.events import Running
from generation.result import GenerationResult
from tests.local import toy_engine
from tests.local.engine_bench import wanted
from tests.local.toy_engine import ToyEngine

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds
TOKEN = "hf_canary_token"
NEVER: Callable[[], bool] = lambda: False  # noqa: E731
Told = list[Running]


def new_toy(
    model: str = "toy", make: Callable[[LocalOptions], ToyEngine] = ToyEngine, **more: float
) -> EngineProcess:
    return EngineProcess(LocalOptions(model, device="cpu", token=SecretStr(TOKEN)), make, **more)


@pytest.fixture
def toys() -> Iterator[Callable[..., EngineProcess]]:
    """Makes engine processes without torch: `toys("slow")`; none outlives its test."""
    made: list[EngineProcess] = []

    def new(*arguments: Any, **more: Any) -> EngineProcess:
        made.append(new_toy(*arguments, **more))
        return made[-1]

    yield new
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def toy() -> Iterator[EngineProcess]:
    """One for all tests that let it live, or that it survives."""
    engine = new_toy()
    yield engine
    engine.close()


def run(engine: EngineProcess, prompt: str, stop: Callable[[], bool] = NEVER) -> tuple[str, Told]:
    """What a job came to, and what was told meanwhile."""
    told: Told = []
    return result_of(engine, prompt, told, stop).prompt, told


def result_of(
    engine: EngineProcess, prompt: str, told: Told, stop: Callable[[], bool] = NEVER
) -> GenerationResult:
    return engine.run(Job(wanted(prompt=prompt)), told.append, stop)


def lines(told: Told) -> list[str]:
    return [line for event in told for line in event.logs]


def pid_of(engine: EngineProcess) -> int:
    assert engine._child is not None
    return engine._child.process.pid


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    """A process that has ended, whether or not somebody took note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# -- what crosses ----------------------------------------------------------------


def test_events_and_the_result_cross(toy: EngineProcess) -> None:
    prompt, told = run(toy, "a fox")
    assert prompt == "a"
    assert told[-1] == Running(1, 8, preview=b"a preview")
    assert set(lines(told)) <= {"Starting PyTorch", "Loading the toy"}


def test_one_process_does_all_jobs_and_gets_ready_once(toy: EngineProcess) -> None:
    first, _ = run(toy, "tell")
    pid = pid_of(toy)
    second, told = run(toy, "tell")
    assert pid_of(toy) == pid and lines(told) == []
    assert json.loads(first)["warmed"] == json.loads(second)["warmed"] == 1


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("odd", EngineFailed, "Odd: one and builtin_function_or_method"),
        ("closed", EngineFailed, "OSError: not our pipe"),
        ("cuda", EngineCrashed, "CUDA error: misaligned address"),
        ("torch", EngineCrashed, "AcceleratorError: gone"),
    ],
)
def test_a_failure_crosses_as_one_of_ours(
    toy: EngineProcess, what: str, error: type[PlaygroundError], words: str
) -> None:
    """Also one that can't be pickled. After a fault of the GPU the process is a new one."""
    run(toy, "a fox")
    pid = pid_of(toy)
    with pytest.raises(error, match=words):
        run(toy, f"raise {what}")
    assert run(toy, "a fox")[0] == "a"
    assert (pid_of(toy) == pid) is (error is EngineFailed)


def test_an_engine_that_cant_be_made_fails_its_job(toys: Callable[..., EngineProcess]) -> None:
    engine = toys(make=toy_engine.unmakeable)
    with pytest.raises(EngineFailed, match="ImportError: libcudart"):
        run(engine, "a fox")


def test_neither_key_nor_token_is_in_its_arguments_or_environment(
    toys: Callable[..., EngineProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FAL_KEY", "HF_TOKEN", "HF_HUB_TOKEN", "CUDA_SECRET", "MY_OWN"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    toy = toys()
    seen = json.loads(run(toy, "tell")[0])
    proc = Path(f"/proc/{pid_of(toy)}")
    for file in ("cmdline", "environ"):
        assert TOKEN.encode() not in (proc / file).read_bytes()
    assert TOKEN not in json.dumps(seen)
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == seen["environment"]["HF_HUB_OFFLINE"]
    assert seen["environment"]["PATH"] == os.environ["PATH"]
    assert {"gradio", "fal_client", "app"} & set(seen["modules"]) == set()
    assert seen["session"] != os.getsid(0), "the terminal's Ctrl+C is for the page"


def test_the_path_to_our_code_comes_before_the_owners() -> None:
    assert environment({"PYTHONPATH": "/x"})["PYTHONPATH"] == os.pathsep.join(
        [str(module.ROOT), "/x"]
    )
    assert environment({}) == {"PYTHONPATH": str(module.ROOT)}


# -- stopping ------------------------------------------------------------------


def test_a_stop_reaches_the_running_job_and_the_process_stays(toy: EngineProcess) -> None:
    run(toy, "a fox")
    pid, told = pid_of(toy), list[Running]()
    with pytest.raises(Stopped):
        result_of(toy, "wait", told, lambda: any(event.step for event in told))
    assert run(toy, "ask")[0] == "go on", "the stop was for that job alone"
    assert pid_of(toy) == pid


def test_a_word_that_comes_after_its_job_isnt_told_to_the_next_one(toy: EngineProcess) -> None:
    run(toy, "late")
    assert lines(run(toy, "asleep")[1]) == []


def test_a_job_that_doesnt_heed_its_stop_is_ended_with_its_process(
    toys: Callable[..., EngineProcess],
) -> None:
    engine = toys(farewell=0.2)
    run(engine, "a fox")
    pid = pid_of(engine)
    with pytest.raises(Stopped):
        run(engine, "deaf", lambda: True)
    assert is_gone(pid)
    assert run(engine, "a fox")[0] == "a" and pid_of(engine) != pid


# -- its death -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("die SIGSEGV", r"segmentation fault, .*native library \(SIGSEGV\)"),
        ("die SIGKILL", r"killed by the system, most likely because main memory ran out \(SIGKILL"),
        ("exit 3", "ended by itself, with status 3"),
        ("exit 0", "ended by itself, with status 0"),
    ],
)
def test_its_death_is_an_error_of_its_job_and_the_next_one_starts_it_anew(
    toy: EngineProcess, how: str, words: str
) -> None:
    with pytest.raises(EngineCrashed, match=words) as crashed:
        run(toy, how)
    assert "next job starts the engine anew" in crashed.value.remedy
    prompt, told = run(toy, "tell")
    assert json.loads(prompt)["warmed"] == 1, "once: no retry that nobody asked for"


@pytest.mark.parametrize(
    ("status", "words"),
    [(-6, "aborted"), (-7, "bus error"), (-15, "terminated"), (-4, "illegal instruction"),
     (-40, "signal 40"), (1, "status 1")],
)  # fmt: skip
def test_every_end_has_words(status: int, words: str) -> None:
    assert words in crash(status).cause


def test_its_death_is_noticed_while_something_it_started_holds_the_wire(
    toy: EngineProcess,
) -> None:
    run(toy, "a fox")
    began = time.monotonic()
    with pytest.raises(EngineCrashed, match="status 5"):
        run(toy, "fork 5")
    assert time.monotonic() - began < 4


def test_one_that_died_between_two_jobs_harms_neither(toy: EngineProcess) -> None:
    run(toy, "a fox")
    pid = pid_of(toy)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not toy._ready)
    assert run(toy, "a fox")[0] == "a" and pid_of(toy) != pid


ORPHANED = """
import os, signal
from backends.local.job import Job
from backends.local.options import LocalOptions
from backends.local.process import EngineProcess
from generation.request import GenerationRequest
from tests.local.toy_engine import ToyEngine

def tell(event):
    if event.step:
        print(toy._child.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

toy = EngineProcess(LocalOptions("toy"), ToyEngine)
toy.run(Job(GenerationRequest(prompt="deaf", seed=7)), tell, lambda: False)
"""


def killed(*arguments: str) -> str:
    """What a Python printed that killed itself. Its child, which has its stderr, may live on."""
    with tempfile.TemporaryFile() as errors:
        run = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            timeout=100,
        )
        errors.seek(0)
        assert run.returncode == -signal.SIGKILL, errors.read().decode()
    return run.stdout.decode()


def test_it_ends_with_the_page_whatever_it_is_doing() -> None:
    """This job neither listens nor says anything that would meet a broken wire."""
    pid = int(killed("-c", ORPHANED))
    began = time.monotonic()
    until(lambda: is_gone(pid))
    assert time.monotonic() - began < 5, "by itself it ends after 30"


# -- getting ready ---------------------------------------------------------------


def test_a_job_hears_what_the_start_is_at(toys: Callable[..., EngineProcess]) -> None:
    engine = toys("slow")
    engine.start()
    engine.start()
    until(lambda: engine._latest.logs == ("Loading the toy",))
    prompt, told = run(engine, "tell")
    assert lines(told) == ["Loading the toy"] and told[-1].step == 1
    assert json.loads(prompt)["warmed"] == 1


def test_giving_up_while_it_gets_ready_leaves_it_at_that(
    toys: Callable[..., EngineProcess],
) -> None:
    engine = toys("slow")
    with pytest.raises(Stopped):
        run(engine, "a fox", lambda: True)
    prompt, _ = run(engine, "tell")
    assert json.loads(prompt)["warmed"] == 1


def test_a_start_that_fails_is_told_to_the_next_job_which_may_have_more_luck(
    toys: Callable[..., EngineProcess], caplog: pytest.LogCaptureFixture
) -> None:
    engine = toys("broken")
    with caplog.at_level(logging.WARNING):
        engine.start()
        until(lambda: not engine._turn.locked())
    assert "the toy is broken" in caplog.text
    prompt, told = run(engine, "tell")
    assert [line for line in lines(told) if "trying again" in line and "toy is broken" in line]
    assert lines(run(engine, "tell")[1]) == [], "once"


def test_a_process_that_cant_be_started_is_told_too(
    toys: Callable[..., EngineProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = toys()
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        engine.start()
        until(lambda: not engine._turn.locked())
    assert engine._trouble is not None and "FileNotFoundError" in engine._trouble.cause
    assert run(engine, "a fox")[0] == "a"


def test_a_crash_while_it_gets_ready_is_no_crash_of_a_job(
    toys: Callable[..., EngineProcess],
) -> None:
    """The job that waits gets a new process, which it is the first to load."""
    prompt, told = run(toys("crashing"), "tell")
    assert [line for line in lines(told) if "SIGSEGV" in line]
    assert json.loads(prompt)["warmed"] == 0


# -- the end -------------------------------------------------------------------


def test_close_ends_the_process_and_its_job(toys: Callable[..., EngineProcess]) -> None:
    toy = toys()
    ended: list[BaseException] = []
    told: Told = []

    def work() -> None:
        try:
            result_of(toy, "deaf", told)
        except Stopped as exc:
            ended.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: any(event.step for event in told))
    pid, began = pid_of(toy), time.monotonic()
    toy.close()
    thread.join(PATIENCE)
    assert time.monotonic() - began < module.GRACE
    assert is_gone(pid) and len(ended) == 1
    toy.start()
    with pytest.raises(Stopped):
        run(toy, "a fox")
    assert toy._child is None, "nothing starts it again"


def test_close_while_it_gets_ready(toys: Callable[..., EngineProcess]) -> None:
    engine = toys("slow")
    engine.start()
    until(lambda: engine._child is not None)
    pid = pid_of(engine)
    engine.close()
    assert is_gone(pid) and engine._child is None


def test_one_that_ignores_sigterm_is_killed(
    toys: Callable[..., EngineProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.2)
    engine = toys(make=toy_engine.stubborn)
    run(engine, "a fox")
    pid = pid_of(engine)
    engine.close()
    assert is_gone(pid)


def test_close_without_a_job_is_nothing() -> None:
    toy = new_toy()
    toy.close()
    toy.close()


def test_what_it_writes_goes_to_our_stderr_without_the_prompt(
    toys: Callable[..., EngineProcess], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineFailed):
        run(toys(), "raise odd")
    out, err = capfd.readouterr()
    assert out == "" and "toy_engine.py" in err
    assert "one and builtin" not in err and TOKEN not in err

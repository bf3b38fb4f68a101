"""The Ray engine on a real cluster of two nodes on this machine, and workers that are lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxrg.batch import ray_engine
from cxrg.batch.local import InProcess
from cxrg.batch.ray_engine import AT_ONCE, RayEngine, Remote, plan
from cxrg.batch.task import Job, Task
from cxrg.cli import main
from cxrg.errors import CxrgError, ModelError, UsageError
from tests.fakes.batch import chest
from tests.fakes.processes import start
from tests.fakes.ray_workers import Falling, Quick, workers
from tests.image.test_image import pillow

JOB = Job(model="none", preset="fast", out=Path("out"))
GIB = 1 << 30


# --- without a cluster ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "resources", "count", "device_there", "needs"),
    [
        ("auto", {"CPU": 8.0, "memory": 64.0 * GIB}, 7, "cpu", {"num_cpus": 1}),
        ("auto", {"CPU": 64.0, "memory": 9.0 * GIB}, 4, "cpu", {"num_cpus": 1}),
        ("cpu", {"CPU": 1.0, "memory": 1.0 * GIB}, 1, "cpu", {"num_cpus": 1}),
        ("cpu", {"CPU": 3.0, "GPU": 2.0, "memory": 64.0 * GIB}, 2, "cpu", {"num_cpus": 1}),
        ("auto", {"CPU": 8.0, "GPU": 4.0}, 4, "cuda", {"num_cpus": 1, "num_gpus": 1}),
        ("cuda", {"CPU": 8.0, "GPU": 1.0}, 1, "cuda", {"num_cpus": 1, "num_gpus": 1}),
    ],
)
def test_workers_leave_a_processor_and_fit_into_memory(
    device: str, resources: dict[str, float], count: int, device_there: str, needs: dict[str, int]
) -> None:
    job, *rest = plan(replace(JOB, device=device), resources)
    assert (job.device, *rest) == (device_there, count, needs)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_devices_that_the_cluster_does_not_have_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match=r"GPU|does not work with Ray"):
        plan(replace(JOB, device=device), {"CPU": 4.0})


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(ray_engine, "import_module", absent)
    with pytest.raises(UsageError, match=r"pip install 'cxrg\[ray\]'"):
        RayEngine(JOB).start()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--engine", "spark"], "engine 'spark' is not known; use local or ray"),
        (["--ray-address", "auto"], "--ray-address is for --engine ray; give both"),
        (["--engine", "ray", "--device", "cuda:0,cuda:1"], "with --engine ray give one --device"),
    ],
)
def test_options_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path, more: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(picture(0))
    monkeypatch.setattr("sys.argv", ["cxrg", "ground", "a.png", "heart", *more])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not Path("cxrg-out").exists()


@pytest.mark.enable_socket
def test_an_address_without_a_cluster() -> None:
    pytest.importorskip("ray", reason="Ray (the extra `ray`) is not installed")
    with pytest.raises(CxrgError, match=r"no Ray cluster at 127\.0\.0\.1:1 \(ConnectionRefused"):
        RayEngine(JOB, address="127.0.0.1:1").start()


def test_nothing_is_started_for_no_tasks() -> None:
    engine = RayEngine(JOB, address="127.0.0.1:1")
    assert list(engine.run([])) == []
    engine.close()


def test_a_worker_hands_expected_errors_back(tmp_path: Path) -> None:
    answer = Remote(replace(JOB, model=str(tmp_path / "no")), str(tmp_path)).open()
    assert isinstance(answer, ModelError)
    answer = Remote(JOB, str(tmp_path / "elsewhere")).open()
    assert isinstance(answer, CxrgError)
    assert "on every node" in str(answer)


# --- on a cluster ---------------------------------------------------------------------------------

ray_cluster = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.filterwarnings("default"),  # Ray leaves sockets and files to the collector
]


NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with two processors, that know each other by their addresses only."""
    pytest.importorskip("ray", reason="Ray (the extra `ray`) is not installed")
    from ray.cluster_utils import Cluster

    # What the nodes start has the environment of now; workers import `tests.fakes.ray_workers`.
    here = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    before, change = dict(os.environ), {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": paths}
    change["RAY_worker_niceness"] = "0"  # Ray's 15 waits for ever on a busy machine
    os.environ.update(change)
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    made.wait_for_nodes()
    yield made
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def engine(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[type[RayEngine]]:
    """Makes engines on the cluster, all of them closed and disconnected at the end."""
    made: list[RayEngine] = []
    monkeypatch.chdir(tmp_path)

    def make(job: Job = JOB, remote: type[Remote] = Quick, **more: Any) -> RayEngine:
        monkeypatch.setattr(ray_engine, "Remote", remote)
        made.append(RayEngine(job, address=cluster.address, **more))
        return made[-1]

    yield make  # type: ignore[misc]
    for each in made:
        each.close()
    import ray

    ray.shutdown()


def tasks(*names: str) -> list[Task]:
    return [Task(index=i, path=Path(name), phrases=("x",)) for i, name in enumerate(names)]


def plain(count: int, kind: str = "plain") -> list[str]:
    return [f"{kind}{n}" for n in range(count)]


class TestOnACluster:
    pytestmark = ray_cluster

    def test_every_task_once_on_both_nodes(self, engine: Any) -> None:
        asked = tasks(*plain(60, "three"))
        found = list(engine().run(asked))
        assert sorted(o.task.index for o in found) == list(range(60))
        assert all(o.failure is None and o.rows for o in found)
        assert len(workers()) == 3  # four processors, one left alone

    def test_few_tasks_are_taken_ahead_and_in_the_callers_thread(self, engine: Any) -> None:
        taken, here = [], threading.get_ident()

        def source() -> Iterator[Task]:
            for task in tasks(*plain(40)):
                assert threading.get_ident() == here
                taken.append(task)
                yield task

        landed = 0
        for _ in engine().run(source()):
            landed += 1
            assert len(taken) - landed < 3 * AT_ONCE + 1
        assert landed == 40

    def test_what_a_lost_worker_had_in_hand_is_done_again(self, engine: Any) -> None:
        asked = tasks(*plain(10), "once", *plain(10, "later"))
        found = list(engine().run(asked))
        assert sorted(o.task.index for o in found) == list(range(21))
        assert all(o.failure is None for o in found)
        assert Path("log").read_text().count("once ") == 2

    def test_a_file_that_ends_two_workers_is_set_aside_and_nothing_else(
        self, engine: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        asked = tasks(*plain(6), "deadly", *plain(6, "later"), "deadly too", *plain(3, "last"))
        found = {o.task.path.name: o for o in engine().run(asked)}
        assert len(found) == len(asked)
        failed = {name: o.failure.kind for name, o in found.items() if o.failure}
        assert failed == {"deadly": "poisoned", "deadly too": "poisoned"}
        assert Path("log").read_text().count("deadly ") == 2 + 2
        assert capfd.readouterr() == ("", "")  # Ray tells of workers that end

    def test_a_worker_that_is_killed_from_outside(self, engine: Any) -> None:
        found, killed = [], 0
        for outcome in engine().run(tasks(*plain(24, "slow"))):
            found.append(outcome.task.index)
            if len(found) in (3, 9):
                pid = int(Path("log").read_text().split()[-1])
                os.kill(pid, signal.SIGKILL)
                killed += 1
        assert killed == 2
        assert sorted(found) == list(range(24))

    def test_a_node_that_goes_away(self, cluster: Any, engine: Any) -> None:
        extra = cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        found = []
        for outcome in engine().run(tasks(*plain(40, "slow"))):
            found.append(outcome)
            if len(found) == 5:
                cluster.remove_node(extra, allow_graceful=False)
        assert sorted(o.task.index for o in found) == list(range(40))
        assert all(o.failure is None for o in found)

    def test_workers_that_never_last_end_the_run(
        self, engine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray_engine, "LOSSES", 3)
        with pytest.raises(CxrgError, match="4 workers ended"):
            list(engine(remote=Falling).run(tasks(*plain(3))))

    def test_what_concerns_every_task_is_raised(self, engine: Any) -> None:
        with pytest.raises(CxrgError, match="disk full"):
            list(engine().run(tasks(*plain(9), "full", *plain(9))))

    def test_stopping_finishes_what_is_begun(self, engine: Any) -> None:
        stop = threading.Event()
        given: list[Task] = []
        found = []

        def counted() -> Iterator[Task]:
            for task in tasks(*plain(40)):
                given.append(task)
                yield task

        for outcome in engine(halt=stop.is_set).run(counted()):
            if not stop.is_set():
                stop.set()
                before = len(given)
            found.append(outcome.task.index)
        assert 1 <= len(given) == before < 40
        assert sorted(found) == [task.index for task in given]
        assert len(Path("log").read_text().splitlines()) == len(given)

    def test_it_may_run_again(self, engine: Any) -> None:
        one = engine()
        assert len(list(one.run(tasks(*plain(5))))) == 5
        assert len(list(one.run(tasks(*plain(5, "more"))))) == 5

    def test_a_model_that_is_not_there(self, engine: Any, tmp_path: Path) -> None:
        job = replace(JOB, model=str(tmp_path / "no"))
        with pytest.raises(ModelError):
            engine(job, Remote).start()

    def test_results_are_those_of_the_plain_loop(self, engine: Any, tmp_path: Path) -> None:
        from tests.fakes import tiny_models

        model = tiny_models.compact(tmp_path / "tiny")
        Path("images").mkdir()
        for n in range(6):
            Path(f"images/{n}.png").write_bytes(picture(n))
        Path("images/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        files = [f"images/{n}.png" for n in (*range(6), "bad")]
        job = Job(model=str(model), preset="fast", device="cpu", out=Path("by-ray"), batch=1)
        ours = engine(job, Remote)
        by_ray = sorted(ours.run(tasks(*files)), key=lambda o: o.task.index)
        alone = InProcess(replace(job, out=Path("alone")))
        assert ours.start() == alone.start()
        plainly = sorted(alone.run(tasks(*files)), key=lambda o: o.task.index)
        assert [o.rows for o in by_ray] == [o.rows for o in plainly]
        assert [o.failure for o in by_ray] == [o.failure for o in plainly]
        assert sum(bool(o.rows) for o in by_ray) == 6
        names = sorted(file.name for file in Path("by-ray").iterdir())
        assert names == sorted(file.name for file in Path("alone").iterdir())
        for name in names:
            assert Path("by-ray", name).read_bytes() == Path("alone", name).read_bytes()

    def test_from_the_command_line(self, tmp_path: Path) -> None:
        pytest.importorskip("ray", reason="Ray (the extra `ray`) is not installed")
        from tests.fakes import tiny_models

        model = tiny_models.compact(tmp_path / "tiny")
        (tmp_path / "images").mkdir()
        for n in range(4):
            (tmp_path / "images" / f"{n}.png").write_bytes(picture(n))
        words = ["ground", "images", "-p", "heart", "--model", model, "--device", "cpu", "--json"]
        before = set(Path("/tmp").glob("cxrg-ray-*"))
        ray = start([*words, "--engine", "ray"], tmp_path, name="ray", fresh=True)
        assert ray.wait() == 0, ray.err
        local = start([*words, "--force"], tmp_path, name="local", fresh=True)
        assert local.wait() == 0, local.err
        assert ray.out == local.out
        assert ray.err == local.err == "cxrg: 4 inputs: 4 done\n"
        assert set(Path("/tmp").glob("cxrg-ray-*")) == before


def picture(seed: int) -> bytes:
    return pillow(chest(seed, (64, 48)), "PNG")

"""Ray: the same results on a cluster of several nodes, one of which is lost while the run is at work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import ray

from streamsr.batch.ray_cluster import RayExecutor
from streamsr.batch.tasks import Ended, Event, Lost, Task, Told
from tests.archives import events_of, make_archive, run_archive, tree_of
from tests.videos import make_video

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets and files open


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores and three nodes with one core each, all on this machine."""
    from ray.cluster_utils import Cluster

    root = str(Path(__file__).resolve().parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    made.nodes = [made.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(3)]
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


class NodeKiller(RayExecutor):
    """A Ray executor under which a node is lost while a task runs there."""

    def __init__(self, cluster: Any, most: int) -> None:
        super().__init__(cluster.address, most=most)
        self.cluster, self.killed, self.victim = cluster, False, cluster.nodes[1]
        self.num_lost = self.num_ended = self.num_submitted = 0

    def submit(self, task: Task) -> None:
        super().submit(task)
        self.num_submitted += 1

    def wait(self, timeout_s: float) -> list[Event]:
        events = super().wait(timeout_s)
        for event in events:
            self.num_ended += isinstance(event, Ended)
            self.num_lost += isinstance(event, Lost)
            if isinstance(event, Told) and self.victim.node_id in event.worker and not self.killed:
                self.killed = True
                self.cluster.remove_node(self.victim, allow_graceful=False)
        return events


def test_a_lost_node_costs_only_its_running_tasks(tmp_path: Path, cluster: Any) -> None:
    archive = make_archive(tmp_path / "in", 2)
    for number in range(3):
        make_video(archive / f"long {number}.mkv", codec="ffv1", width=320, height=240, num_frames=400, audio=True)
    assert run_archive(archive, out=tmp_path / "calm", segment_s=4.0)[0] == 0
    killers: list[NodeKiller] = []

    def make(most: int) -> NodeKiller:
        killers.append(NodeKiller(cluster, most))
        return killers[0]

    code, witness = run_archive(archive, out=tmp_path / "out", segment_s=4.0, make_executor=make, retries=3)
    assert (code, len(witness.made)) == (0, 5)
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "calm")
    (killer,) = killers
    assert killer.killed
    assert killer.num_lost == 1, "the node had one core, so one task ran there"
    assert killer.num_submitted == killer.num_ended + 1, "only that one was started again"
    finished = [output for output, what in events_of(tmp_path / "out") if what == "done"]
    assert len(finished) == len(set(finished)) == 5

"""The number of cores, from files as Linux writes them."""

from pathlib import Path

import pytest

from virtex.cores import num_cores, processors

EIGHT = range(8)


def machine(root: Path, **files: str) -> Path:
    """Write a system of four cores with two hardware threads each, and further files."""
    for cpu in EIGHT:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        topology.parent.mkdir(parents=True)
        topology.write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_hardware_threads_of_a_core_count_once(tmp_path: Path) -> None:
    assert num_cores(EIGHT, root=machine(tmp_path)) == 4
    assert num_cores([0, 4], root=tmp_path) == 1
    assert num_cores([0, 1, 4], root=tmp_path) == 2


def test_processors_without_a_known_core_count_each(tmp_path: Path) -> None:
    assert num_cores([3, 5, 6], root=tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "399000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "what\n"}, 4),
        ({"proc/self/cgroup": "torn", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,cpuacct:/docker/id\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
    ],
)
def test_a_quota_of_a_container_is_a_limit(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert num_cores(EIGHT, root=machine(tmp_path, **files)) == expected


def test_this_machine_has_a_core() -> None:
    assert 1 <= num_cores() <= len(processors())

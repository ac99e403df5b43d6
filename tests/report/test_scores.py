"""Which results are compared with which, and what they are called."""

from dataclasses import replace

from tests.report.conftest import make_result
from virtex.report.scores import compare
from virtex.transfer.protocol import Result


def start(init: str, score: float, backbone: str, **rest: object) -> Result:
    came_from = {"init": init, "backbone": {"name": backbone, "options": {}}, **rest}
    return make_result(init, score, initialisation=came_from)


def test_results_with_other_settings_or_data_are_not_compared() -> None:
    base = make_result("random", 20.0)
    larger = make_result("run", 30.0, settings={"image_size": 224})
    elsewhere = make_result("run", 40.0, data={"train": {"source": "voc", "images": 99}})
    assert [len(group.scores) for group in compare([base, larger, elsewhere])] == [1, 1, 1]


def test_the_same_data_in_another_place_is_compared() -> None:
    places = [{"train": {"source": "voc", "root": root, "sha256": "1"}} for root in ("/a", "/b")]
    results = [make_result(place["train"]["root"], 1.0, data=place) for place in places]
    assert len(compare(results)) == 1


def test_the_best_comes_first_and_is_marked() -> None:
    (group,) = compare([make_result(name, s) for name, s in (("a", 1.0), ("b", 3.0), ("c", 2.0))])
    assert [score.init for score in group.scores] == ["b", "c", "a"]
    assert [score.is_best for score in group.scores] == [True, False, False]


def test_the_gain_is_over_the_same_architecture_at_random() -> None:
    results = [
        start("random", 20.0, "resnet18"),
        start("random", 30.0, "resnet50"),
        start("imagenet", 80.0, "resnet50.tv_in1k"),
        start("run", 50.0, "resnet18"),
    ]
    (group,) = compare(results)
    gains = {score.init: score.over_random for score in group.scores}
    assert gains["imagenet"] == 50.0
    assert gains["run"] == 30.0
    assert [gain for init, gain in gains.items() if init.startswith("random")] == [None, None]


def test_seeds_of_one_start_are_averaged() -> None:
    seeds = [make_result("random", 20.0 + 2 * seed, seed=seed) for seed in range(3)]
    (group,) = compare([*seeds, make_result("run", 50.0)])
    run, random = group.scores
    assert (random.value, random.deviation, len(random.results)) == (22.0, 2.0, 3)
    assert random.written == "22.0 ± 2.0"
    assert (run.over_random, run.written) == (28.0, "50.0")


def test_few_labels_of_several_seeds_are_the_same_data() -> None:
    results = [
        make_result(
            "run", 30.0 + seed, seed=seed,
            data={"train": {"source": "voc", "subset": 50, "subset_sha256": str(seed)}},
        )
        for seed in range(2)
    ]  # fmt: skip
    (group,) = compare(results)
    assert [len(score.results) for score in group.scores] == [2]


def test_the_papers_figures_stand_beside_results_of_its_protocol_alone() -> None:
    voc07 = make_result("run", 80.0, protocol="voc07")
    (ours,), (papers,) = compare([voc07]), compare([replace(voc07, as_in_paper=True)])
    assert ours.references == ()
    values = {reference.name: reference.value for reference in papers.references}
    assert values["bicaptioning_R_50_L1_H2048 (the paper's figure)"] == 88.7
    assert len(values) == 5
    assert [score.init for score in papers.scores] == ["run"]


def test_of_the_checkpoints_of_a_run_the_best_stands_with_its_step() -> None:
    steps = [start("out/run", score, "r", step=step) for step, score in ((10, 40.0), (20, 45.0))]
    (group,) = compare([*steps, start("random", 20.0, "r", step=None)])
    assert [score.init for score in group.scores] == ["run, step 20", "random"]


def test_runs_of_the_same_name_keep_as_much_path_as_tells_them_apart() -> None:
    (group,) = compare([make_result("x/a/run", 2.0), make_result("x/b/run", 1.0)])
    assert [score.init for score in group.scores] == ["a/run", "b/run"]

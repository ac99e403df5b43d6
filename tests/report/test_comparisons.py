"""Comparisons: groups of results, and their names."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.conftest import make_result
from virtex.report.comparisons import compare
from virtex.transfer.identities import same_data
from virtex.transfer.protocol import Result


def start(init: str, score: float, backbone: str, **rest: object) -> Result:
    came_from = {"init": init, "backbone": {"name": backbone, "options": {}}, **rest}
    return make_result(init, score, initialisation=came_from)


def test_results_with_other_settings_or_data_are_not_compared() -> None:
    base = make_result("random", 20.0)
    larger = make_result("run", 30.0, settings={"image_size": 224})
    elsewhere = make_result("run", 40.0, data={"train": {"source": "voc", "images": 99}})
    assert [len(group.scores) for group in compare([base, larger, elsewhere])] == [1, 1, 1]


def test_the_same_data_in_another_folder_is_compared() -> None:
    places = [{"train": {"source": "voc", "root": root, "sha256": "1"}} for root in ("/a", "/b")]
    results = [make_result(place["train"]["root"], 1.0, data=place) for place in places]
    assert len(compare(results)) == 1


IDENTITIES = [
    {"source": "coco", "root": "ROOT", "image_root": "ROOT/images", "split": "val"},
    {"source": "flickr", "root": "ROOT/results.csv", "image_root": "ROOT/images"},
    {"source": "table", "root": "ROOT", "table": "ROOT/pairs.csv"},
]


def at(root: str, identity: dict[str, str]) -> dict[str, dict[str, str]]:
    return {"test": {key: text.replace("ROOT", root) for key, text in identity.items()}}


@pytest.mark.parametrize("identity", IDENTITIES, ids=[one["source"] for one in IDENTITIES])
def test_data_are_the_same_wherever_any_of_their_files_lie(identity: dict[str, str]) -> None:
    places = [at(root, identity) for root in ("/a", "/b")]
    assert same_data(*places)
    assert len(compare([make_result(f"{i}", 1.0, data=data) for i, data in enumerate(places)])) == 1
    other = [{"test": {**places[0]["test"], "sha256": digits}} for digits in ("1", "2")]
    assert not same_data(*other)


def test_images_in_two_folders_under_one_table_are_two_data_sets_of_an_init() -> None:
    data = [at("/a", {"source": "table", "root": f"ROOT/{name}", "table": "ROOT/pairs.csv"})
            for name in ("fog", "snow")]  # fmt: skip
    assert len(compare([make_result("run", 1.0, data=each) for each in data])) == 2


def test_one_folder_that_is_spelled_in_several_ways_is_one_data_set() -> None:
    roots = ("fog", "fog/", "./fog//", str(Path("fog").resolve()))
    (group,) = compare([on(root, "run", 50.0 + i, seed=i % 2) for i, root in enumerate(roots)])
    assert [score.written for score in group.scores] == ["50.5 ± 0.7"]
    assert group.about.startswith("fog, folder layout · 2500")
    assert "several folders" not in " ".join(group.notes)


def on(root: str, init: str, score: float, **rest: object) -> Result:
    return make_result(init, score, data={"train": {"source": "folder", "root": root}}, **rest)


def test_one_init_measured_in_two_folders_was_measured_on_two_data_sets() -> None:
    results = [on("/d/fog", "run", 50.0), on("/d/snow", "run", 70.0), on("/d/fog", "random", 9.0)]
    fog, snow = compare(results)
    assert [score.value for score in fog.scores] == [50.0, 9.0]
    assert [score.value for score in snow.scores] == [70.0]
    assert (fog.about[:5], snow.about[:6]) == ("d/fog", "d/snow")


def test_data_sets_of_the_same_name_are_told_apart_by_their_folders() -> None:
    results = [on(f"/{name}/d/fog", "run", 50.0) for name in "ab"]
    assert [group.about.rpartition(" · ")[2] for group in compare(results)] == [
        "data.train.root /a/d/fog", "data.train.root /b/d/fog",
    ]  # fmt: skip


def test_a_table_over_two_folders_says_which_score_is_of_which() -> None:
    (group,) = compare([on("/a/voc", "one", 2.0), on("/b/voc", "two", 1.0)])
    assert group.about.startswith("a/voc, folder layout and b/voc, folder layout")
    (note,) = group.notes
    assert note.endswith("is not known: /a/voc (one); /b/voc (two).")


def test_two_samples_of_one_seed_are_two_data_sets() -> None:
    results = [
        make_result("run", 30.0, data={"train": {"subset": 50, "subset_sha256": digits}})
        for digits in ("1a", "2b")
    ]
    assert [group.about[-9:] for group in compare(results)] == ["sha256 1a", "sha256 2b"]


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


def test_seeds_of_one_initialisation_are_averaged() -> None:
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


def test_labels_sampled_by_the_same_rule_are_the_same_data_whatever_their_number() -> None:
    def drawn(seed: int, size: int, **changes: object) -> Result:
        share = {"subset": size, "subset_sha256": str(seed), "drawn": "shots 5", "drawn_from": 99}
        data = {"train": {"source": "voc", "images": 99, **share, **changes}}
        numbers = {"mAP": 30.0 + seed, "num_train": float(size), "num_test": 7.0}
        return make_result("run", 0.0, seed=seed, data=data, numbers=numbers)

    (group,) = compare([drawn(0, 48), drawn(1, 53), drawn(2, 51)])
    assert [len(score.results) for score in group.scores] == [3]
    assert "shots 5 · 48 to 53 and 7 images" in group.about
    others = [drawn(0, 48, drawn="shots 6"), drawn(0, 48, drawn_from=50)]
    assert len(compare([drawn(0, 48), *others])) == 3


def test_numbers_that_only_some_results_have_are_shown_for_those() -> None:
    plain = make_result("a", 20.0, numbers={"mAP": 20.0, "AP/cat": 17.0})
    more = make_result("b", 10.0, numbers={"mAP": 10.0, "knn_mAP": 8.0, "num_bad": 1.0})
    (group,) = compare([plain, more])
    assert dict(group.details) == {
        "AP/cat": (17.0, None), "knn_mAP": (None, 8.0), "num_bad": (None, 1.0),
    }  # fmt: skip
    assert dict(group.main_details) == {"knn_mAP": (None, 8.0)}


def test_recall_at_ten_is_not_a_variant_of_recall_at_one() -> None:
    numbers = {"to_text_R@1": 10.0, "to_text_R@5": 40.0, "to_text_R@10": 50.0}
    (group,) = compare([make_result("run", 0.0, headline="to_text_R@1", numbers=numbers)])
    assert [name for name, _ in group.main_details] == ["to_text_R@5", "to_text_R@10"]
    numbers = {"box_AP": 20.0, "mask_AP": 10.0, "mask_AP50": 30.0}
    (group,) = compare([make_result("run", 0.0, headline="mask_AP", numbers=numbers)])
    assert [name for name, _ in group.main_details] == ["mask_AP50", "box_AP"]


def test_captioning_is_described_by_its_only_split_and_without_percent() -> None:
    (group,) = compare(
        [
            make_result(
                "run", 0.0, protocol="captioning", headline="CIDEr-D",
                numbers={"CIDEr-D": 71.0, "num_images": 5000.0, "mean_words": 9.0},
                data={"test": {"source": "coco", "split": "val2017"}},
            )
        ]
    )  # fmt: skip
    assert group.measured == "CIDEr-D"
    assert group.about == "coco · val2017 · 5000 images · 64 px"
    assert group.main_details == ()


def test_the_papers_scores_are_shown_for_its_protocol_only() -> None:
    voc07 = make_result("run", 80.0, protocol="voc07")
    (ours,), (papers,) = compare([voc07]), compare([replace(voc07, as_in_paper=True)])
    assert ours.references == {}
    assert papers.references["bicaptioning_R_50_L1_H2048 (the paper's figure)"] == 88.7
    assert len(papers.references) == 5
    assert [score.init for score in papers.scores] == ["run"]


def test_the_best_checkpoint_of_a_run_is_shown_with_its_step_and_the_others_are_named() -> None:
    steps = [start("out/run", score, "r", step=step) for step, score in ((10, 40.0), (20, 45.0))]
    (group,) = compare([*steps, start("random", 20.0, "r", step=None)])
    assert [score.init for score in group.scores] == ["run, step 20", "random"]
    assert [note.partition(" is: ")[2] for note in group.notes] == ["run, step 10: 40.0 (seed 0)."]


def at_step(step: int, score: float, *, seed: int = 0, sha256: str | None = None) -> Result:
    return replace(start("run", score, "r", step=step, sha256=sha256), seed=seed)


def test_one_step_with_all_its_seeds_represents_a_run() -> None:
    scores = {1000: (50.0, 52.0, 49.0), 2000: (51.0, 50.0, 53.0)}
    results = [
        at_step(step, score, seed=seed, sha256=str(step))
        for step, of_seeds in scores.items()
        for seed, score in enumerate(of_seeds)
    ]
    lucky = at_step(3000, 99.0, sha256="3000")
    (group,) = compare([*results, lucky])
    (score,) = group.scores
    assert (score.init, score.written) == ("run, step 2000", "51.3 ± 1.5")
    assert [result.seed for result in score.results] == [0, 1, 2]
    assert "run, step 1000: 50.3 ± 1.5 (seeds 0, 1, 2); run, step 3000: 99.0" in group.notes[0]


def test_other_weights_of_the_same_name_and_step_are_another_row() -> None:
    results = [
        at_step(1000, 50.0, sha256=16 * "a"),
        at_step(1000, 70.0, sha256=16 * "b"),
        at_step(2000, 60.0, sha256=16 * "c"),
    ]
    (group,) = compare(results)
    assert {score.init: score.value for score in group.scores} == {
        f"run, step 1000 sha256 {12 * 'a'}": 50.0,
        f"run, step 1000 sha256 {12 * 'b'}": 70.0,
        "run, step 2000": 60.0,
    }
    assert group.notes == ()


SPELLINGS = ("out/run", "out/run/", "./out/run", "/home/out/run", "out/run/weights.safetensors")


def spelled(init: str, step: int, score: float, *, seed: int) -> Result:
    origin = {"init": init, "step": step, "sha256": f"{step}", "backbone": {"name": "r"}}
    return make_result(init, score, initialisation=origin, seed=seed)


def test_weights_have_one_row_however_their_init_is_spelled() -> None:
    results = [spelled(init, 20, 10.0 + i, seed=i) for i, init in enumerate(SPELLINGS)]
    (group,) = compare(results)
    assert [(score.init, score.written) for score in group.scores] == [
        ("run, step 20", "12.0 ± 1.6")
    ]


def test_a_run_is_represented_by_one_checkpoint_however_its_init_is_spelled() -> None:
    first = [spelled(init, 20, 50.0, seed=i) for i, init in enumerate(SPELLINGS)]
    second = [spelled(init, 30, 60.0, seed=0) for init in SPELLINGS[:1]]
    early = make_result("r", 40.0, initialisation={"init": "out/run/", "step": 10})
    (group,) = compare([*first, *second, early])
    assert [score.init for score in group.scores] == ["run, step 20"]
    assert "run, step 30: 60.0" in group.notes[0]
    assert "run/, step 10: 40.0" in group.notes[0]


def test_a_copy_of_a_run_that_was_trained_differently_is_another_run() -> None:
    def of_copy(step: int, score: float, sha256: str) -> Result:
        return replace(start("copy", score, "r", step=step, sha256=sha256), seed=0)

    own = [at_step(10, 10.0, sha256="a"), at_step(20, 20.0, sha256="b")]
    (group,) = compare([*own, of_copy(10, 10.0, "a"), of_copy(20, 30.0, "c")])
    assert [score.init for score in group.scores] == ["copy, step 20", "run, step 20"]


def test_weights_that_two_inits_name_were_measured_on_two_data_sets() -> None:
    of = {"step": None, "sha256": "a"}
    results = [
        make_result("run", 50.0, initialisation={"init": init, **of},
                    data={"train": {"source": "folder", "root": root}})
        for init, root in (("run", "/d/fog"), ("./run", "/d/snow"))
    ]  # fmt: skip
    assert len(compare(results)) == 2


def test_the_same_name_in_two_folders_of_results_may_be_two_runs() -> None:
    results = [
        replace(at_step(1000, 50.0, sha256="a"), folder=Path("/x/first/results")),
        replace(at_step(2000, 70.0, sha256="b"), folder=Path("/x/second/results")),
    ]
    (group,) = compare(results)
    assert [(score.init, score.value) for score in group.scores] == [
        ("run (second/results), step 2000", 70.0), ("run (first/results), step 1000", 50.0),
    ]  # fmt: skip
    seeds = [replace(one, seed=number, folder=Path(f"/{number}"))
             for number, one in enumerate(2 * results[:1])]  # fmt: skip
    assert [len(score.results) for score in compare(seeds)[0].scores] == [2]


def test_another_measurement_of_the_same_weights_and_seed_is_named() -> None:
    (group,) = compare([make_result("a", 20.0), make_result("a", 21.0), make_result("a", 20.0)])
    assert [score.written for score in group.scores] == ["20.0"]
    assert [note.partition(" is: ")[2] for note in group.notes] == ["a: 21.0 (seed 0)."]


def test_results_of_early_stopping_without_a_network_keep_the_gain_over_random() -> None:
    def early(step: int, score: float) -> Result:
        return make_result("run", score, initialisation={"init": "run", "step": step})

    random = start("random", 20.0, "r")
    for results in ([early(20, 45.0)], [early(10, 45.0), early(20, 40.0)]):
        measured = at_step(20, results[-1].score, sha256="a")
        (group,) = compare([*results, measured, random])
        assert [score.over_random for score in group.scores] == [25.0, None]


def test_runs_of_the_same_name_keep_enough_of_the_path_to_be_distinct() -> None:
    (group,) = compare([make_result("x/a/run", 2.0), make_result("x/b/run", 1.0)])
    assert [score.init for score in group.scores] == ["a/run", "b/run"]


def test_comparisons_that_look_the_same_state_the_settings_that_differ() -> None:
    settings = [{"image_size": 64, "optim": {"lr": lr}, "frozen": True} for lr in (0.3, 30.0)]
    low, high = compare([make_result("run", 1.0, settings=one) for one in settings])
    assert low.about.endswith("64 px · optim.lr 0.3")
    assert high.about.endswith("64 px · optim.lr 30.0")
    (alone,) = compare([make_result("run", 1.0, settings=settings[0])])
    assert alone.about.endswith("64 px")

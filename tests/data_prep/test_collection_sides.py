"""Sides of the collection and parts of a family: what must hold whatever the images, groups and duplicates are."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.collection.families import PERCENTAGES, family_of, kept_images
from data_prep.collection.sides import (
    Joined,
    Picture,
    Validation,
    check_sides,
    decide_sides,
    join_groups,
)
from data_prep.frames import ImageFile
from data_prep.records import Record
from data_prep.splits import SplitPlan, with_validation
from ultrasam.errors import DataError

SIDES = {"train", "val", "test", "excluded"}


@st.composite
def collections(draw) -> tuple[list[Picture], list[tuple[int, int]]]:
    """Some sets with groups of some images, a few groups on a test side, and near duplicates."""
    pictures = []
    for number in range(draw(st.integers(1, 4))):
        slug = f"set{number}"
        for group in range(draw(st.integers(1, 12))):
            test = draw(st.integers(0, 5)) == 0
            for image in range(draw(st.integers(1, 4))):
                pictures.append(Picture(slug, f"{slug}/images/{group}_{image}.png", f"{slug}/{group}", 0, test))
    place = st.integers(0, len(pictures) - 1)
    return pictures, draw(st.lists(st.tuples(place, place), max_size=12))


def array(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def truly_joined(pictures: list[Picture], pairs: list[tuple[int, int]]) -> list[set[str]]:
    """Groups united step by step, for each picture."""
    sets = {picture.group: {picture.group} for picture in pictures}
    for one, two in pairs:
        united = sets[pictures[one].group] | sets[pictures[two].group]
        for group in united:
            sets[group] = united
    return [sets[picture.group] for picture in pictures]


def decide(pictures, pairs, validation=None) -> tuple[Joined, list[str]]:
    joined = join_groups(pictures, array(pairs))
    return joined, decide_sides(pictures, joined, validation or {})


@settings(max_examples=50, deadline=None)
@given(collections())
def test_groups_are_joined_as_one_after_the_other(collection):
    pictures, pairs = collection
    joined = join_groups(pictures, array(pairs))
    for label, groups in zip(joined.labels.tolist(), truly_joined(pictures, pairs), strict=True):
        assert joined.groups[label] == sorted(groups)
        assert joined.names[label] == min(groups)


@settings(max_examples=60, deadline=None)
@given(collections(), st.sampled_from([0.0, 0.05, 0.3, 0.6]))
def test_no_group_and_no_duplicate_is_on_two_sides(collection, fraction):
    pictures, pairs = collection
    _, sides = decide(pictures, pairs, {f"set{number}": Validation(fraction) for number in range(4)})
    assert set(sides) <= SIDES
    together = truly_joined(pictures, pairs)
    test_groups = {picture.group for picture in pictures if picture.test}
    where = defaultdict(set)
    for picture, side, groups in zip(pictures, sides, together, strict=True):
        assert (side == "test") == picture.test
        assert (side == "excluded") == (not picture.test and bool(groups & test_groups))
        if side != "excluded":
            where[min(groups)].add(side)
    assert all(len(found) == 1 for found in where.values())
    check_sides(pictures, sides, array(pairs))


@settings(max_examples=50, deadline=None)
@given(collections(), st.sampled_from([0.05, 0.3]))
def test_every_set_keeps_training_images_and_gives_its_share(collection, fraction):
    pictures, pairs = collection
    _, sides = decide(pictures, pairs, {f"set{number}": Validation(fraction) for number in range(4)})
    together = truly_joined(pictures, pairs)
    for slug in {picture.dataset for picture in pictures}:
        usable = [(min(groups), side, min(groups)) for picture, side, groups in
                  zip(pictures, sides, together, strict=True) if picture.dataset == slug and side in ("train", "val")]
        groups = {name for name, _, _ in usable}
        val = [name for name, side, _ in usable if side == "val"]
        if groups:
            assert any(side == "train" for _, side, _ in usable)
        # The share is reached unless a group more would take the last one of some set.
        if len(val) < fraction * len(usable):
            rest = groups - set(val)
            holders = defaultdict(set)
            for picture, side, joined in zip(pictures, sides, together, strict=True):
                if side == "train":
                    holders[picture.dataset].add(min(joined))
            assert all(any(names == {name} for names in holders.values()) for name in rest)


@settings(max_examples=50, deadline=None)
@given(collections(), st.randoms(use_true_random=False))
def test_the_order_of_the_images_changes_nothing(collection, shuffler: random.Random):
    pictures, pairs = collection
    order = list(range(len(pictures)))
    shuffler.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    turned = [(place[two], place[one]) for one, two in pairs]
    shuffler.shuffle(turned)
    joined, sides = decide(pictures, pairs)
    other, other_sides = decide([pictures[old] for old in order], turned)
    assert [other_sides[place[number]] for number in range(len(pictures))] == sides
    kept = family_parts(pictures, sides, joined)
    other_kept = family_parts([pictures[old] for old in order], other_sides, other)
    for percentage in PERCENTAGES:
        assert [bool(other_kept[percentage][place[number]]) for number in range(len(pictures))] == \
            kept[percentage].tolist()


def family_parts(pictures, sides, joined) -> dict[int, np.ndarray]:
    inside = np.array([picture.dataset in ("set0", "set1") for picture in pictures])
    return kept_images(pictures, sides, joined, inside, "breast")


@settings(max_examples=60, deadline=None)
@given(collections())
def test_parts_of_a_family_are_nested_and_leave_all_else(collection):
    pictures, pairs = collection
    joined, sides = decide(pictures, pairs)
    kept = family_parts(pictures, sides, joined)
    train = np.array([side == "train" for side in sides])
    inside = np.array([picture.dataset in ("set0", "set1") for picture in pictures])
    together = truly_joined(pictures, pairs)
    concerned = {min(groups) for groups, here in zip(together, train & inside, strict=True) if here}
    shown = np.array([min(groups) in concerned for groups in together])
    total = int((train & inside).sum())
    for smaller, larger in pairwise(PERCENTAGES):
        assert not (kept[smaller] & ~kept[larger]).any()
    for percentage, marks in kept.items():
        np.testing.assert_array_equal(marks & ~shown, train & ~shown)
        by_group = defaultdict(set)
        for groups, side, mark in zip(together, train, marks, strict=True):
            if side:
                by_group[min(groups)].add(bool(mark))
        assert all(len(found) == 1 for found in by_group.values())
        count, sizes = int((marks & inside).sum()), [
            sum(min(groups) == name for groups, here in zip(together, train & inside, strict=True) if here)
            for name in concerned]
        if percentage and total:
            # At most the percentage, unless no group is that small.
            assert 100 * count <= percentage * total or count == min(sizes)
            assert count > 0
    assert not (kept[0] & shown).any()
    np.testing.assert_array_equal(kept[100], train)


def test_other_seeds_and_families_choose_other_groups():
    pictures = [Picture("set0", f"set0/{number}.png", f"set0/{number}", 0, False) for number in range(200)]
    chosen = [{number for number, side in enumerate(decide(pictures, [], {"set0": Validation(0.1, seed)})[1])
               if side == "val"} for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert [len(found) for found in chosen] == [20, 20, 20]
    joined, sides = decide(pictures, [])
    inside = np.ones(200, dtype=bool)
    parts = [kept_images(pictures, sides, joined, inside, family)[30].tolist() for family in ("breast", "ovarian")]
    assert parts[0] != parts[1]
    # 5 % of 200 images are for validation.
    assert [sum(part) for part in parts] == [57, 57]


def test_new_images_leave_the_others_where_they_are():
    def sides(count: int) -> list[str]:
        pictures = [Picture("set0", f"set0/{number}.png", f"set0/{number}", 0, False) for number in range(count)]
        return decide(pictures, [], {"set0": Validation(0.2)})[1]

    before, after = sides(100), sides(110)
    assert sum(one != two for one, two in zip(before, after[:100], strict=True)) <= 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=15), st.sampled_from([0.0, 0.05, 0.4]), st.integers(0, 3))
def test_a_set_without_duplicates_keeps_the_sides_of_its_conversion(tmp_path_factory, sizes, fraction, seed):
    source = ImageFile(tmp_path_factory.getbasetemp() / "unused.png")
    records = [Record(f"{group}_{number}", source, (), group=f"p{group}")
               for group, size in enumerate(sizes) for number in range(size)]
    plan = SplitPlan(validation_fraction=fraction, seed=seed)
    converted = with_validation(records, {record.key: "train" for record in records}, plan, "alone")
    pictures = [Picture("alone", f"alone/images/{record.key}.png", f"alone/{record.group}", 0, False)
                for record in records]
    _, sides = decide(pictures, [], {"alone": Validation(fraction, seed)})
    assert sides == [converted[record.key] for record in records]


def test_duplicates_across_sets_go_to_validation_together():
    pictures = [Picture(slug, f"{slug}/{number}.png", f"{slug}/{number}", 0, False)
                for slug in ("set0", "set1") for number in range(40)]
    pairs = [(number, 40 + number) for number in range(40)]
    _, sides = decide(pictures, pairs, {slug: Validation(0.1) for slug in ("set0", "set1")})
    assert sides[:40] == sides[40:]
    # What the first set chose counts for the second.
    assert sides.count("val") == 8


def test_the_last_group_of_another_set_is_not_taken():
    pictures = [Picture("set0", f"set0/{number}.png", f"set0/{number}", 0, False) for number in range(3)]
    pictures.append(Picture("set1", "set1/0.png", "set1/0", 0, False))
    for number in range(3):
        _, sides = decide(pictures, [(number, 3)], {"set0": Validation(0.9)})
        assert sides[3] == "train"
        assert sides.count("val") == 2


@pytest.mark.parametrize(("sides", "words"), [
    (["train", "train", "test", "val"], "1 groups are on two sides of the split (first: ['set0/b'])"),
    (["train", "test", "test", "val"], "set0/1.png (train) and set0/4.png (val) show the same picture"),
])
def test_sides_that_share_something_are_refused(sides, words):
    pictures = [Picture("set0", f"set0/{number}.png", f"set0/{group}", 0, False)
                for number, group in ((1, "a"), (2, "b"), (3, "b"), (4, "c"))]
    with pytest.raises(DataError) as caught:
        check_sides(pictures, sides, array([(0, 3)]))
    assert words in str(caught.value)


def test_an_image_on_two_sides_is_refused():
    pictures = [Picture("set0", "set0/1.png", group, 0, False) for group in ("set0/a", "set0/b")]
    with pytest.raises(DataError, match=r"1 images are on two sides of the split \(first: \['set0/1.png'\]\)"):
        check_sides(pictures, ["train", "val"], array([]))
    check_sides(pictures, ["train", "excluded"], array([(0, 1)]))


@pytest.mark.parametrize(("words", "family"), [
    ("breast lesions breast", "breast"), ("Breast", "breast"), ("ovarian ovary", "ovarian"),
    ("GIST gastrointestinal tract", "gastrointestinal"), ("cardiac heart", None), ("other", None),
    # Not what it looks like.
    ("registration prostate", None), ("muscles gastrocnemius medialis", None),
])
def test_families_by_application_and_organ(words, family):
    assert family_of(words) == family

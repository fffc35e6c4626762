"""The catalogue as a whole: the 43 sets of the paper, each entry complete, each converter on its own feet."""

from __future__ import annotations

import ast
import dataclasses
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from data_prep import converters
from data_prep.catalogue import catalogue
from data_prep.records import DatasetInfo

SLUGS = [
    "abdomen_us", "acouslic", "asus", "aul", "brachial_plexus", "breast_lesions_usg", "buid", "bus_bra",
    "bus_dataset_b", "bus_uc", "bus_uclm", "busi", "camus", "cardiac_udc", "ccaui", "ddti", "echocp",
    "echonet_dynamic", "echonet_pediatric", "fallmud", "fass", "fast_unet", "fh_ps_aop", "gist514_db", "hc18",
    "kidney_us", "luss_phantom", "microseg", "mmotu_2d", "mmotu_3d", "mup", "regpro", "s1", "segthy", "stmus_nda",
    "stu_hospital", "tg3k", "thyroid_cineclip", "tn3k", "tnscui", "ubpd", "us_nerve", "us105",
]
# Rows of the paper's Table 1 by application.
APPLICATIONS = {
    "plexus": "brachial_plexus ubpd",
    "cardiac": "camus cardiac_udc echonet_dynamic echonet_pediatric",
    "thyroid nodules": "ddti tg3k thyroid_cineclip tn3k tnscui",
    "thyroid": "segthy",
    "fetal abdomen": "acouslic fass",
    "cervical nerves": "us_nerve",
    "prostate": "mup microseg regpro",
    "muscles": "fallmud stmus_nda",
    "fetal head": "fast_unet fh_ps_aop hc18",
    "spine": "asus",
    "breast lesions": "breast_lesions_usg buid bus_bra bus_dataset_b bus_uc bus_uclm busi s1",
    "ovarian": "mmotu_2d mmotu_3d",
    "Patent Foramen Ovale": "echocp",
    "carotid artery": "ccaui",
    "liver": "aul us105",
    "artefacts": "luss_phantom",
    "GIST": "gist514_db",
    "kidney": "kidney_us",
    "abdomen": "abdomen_us",
    "other": "stu_hospital",
}
# Images and masks that the rows of Table 1 add up to; "MUP & MicroSeg" is one row.
TABLE_1 = (186_894, 279_765)
# Sets of which the paper reports scores for whole images.
TEST_SETS = {"bus_bra", "gist514_db", "mmotu_2d"}
LONGEST = 160

INFOS = {slug: converter.info for slug, converter in catalogue().items()}
FOLDER = Path(converters.__path__[0])


def test_the_catalogue_is_the_43_sets_of_the_paper():
    assert len(SLUGS) == 43
    assert sorted(INFOS) == sorted(SLUGS)
    assert sorted(slug for slugs in APPLICATIONS.values() for slug in slugs.split()) == sorted(SLUGS)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_entry_is_complete(slug):
    info = INFOS[slug]
    assert info.slug == slug
    assert re.fullmatch(r"https://[\w.-]+/?\S*", info.home)
    for text in (info.name, info.licence, info.organ, info.view, info.group_key):
        assert text == text.strip() != ""
    assert info.table1 is not None
    assert min(info.table1) > 0
    assert info.expected.keys() <= {"images", "masks", "groups"}
    assert all(isinstance(count, int) and count >= 0 for count in info.expected.values())
    assert info.rules.min_area >= 1


@pytest.mark.parametrize("slug", SLUGS)
def test_categories_are_names_of_their_own(slug):
    categories = INFOS[slug].categories
    assert len(set(categories)) == len(categories) > 0
    for name in categories:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)


@pytest.mark.parametrize("slug", SLUGS)
def test_applications_are_those_of_the_paper(slug):
    # The paper files the breast images of the Shantou hospital under "other".
    paper = next(application for application, slugs in APPLICATIONS.items() if slug in slugs.split())
    assert INFOS[slug].application == ("breast lesions" if slug == "stu_hospital" else paper)


def test_table_1_adds_up():
    rows = [info.table1 for info in INFOS.values() if not info.alias_of and info.table1]
    assert tuple(map(sum, zip(*rows, strict=True))) == TABLE_1


@pytest.mark.parametrize("slug", SLUGS)
def test_downloads_are_found_by_lower_case_patterns(slug):
    patterns = INFOS[slug].names
    assert patterns
    for pattern in (*patterns, *INFOS[slug].ignored):
        assert pattern == pattern.lower()
        # A pattern that any name fits would take every download for this set.
        assert not fnmatchcase("download", pattern)
    # Whoever has a download of another name is told to call it as its set.
    for name in (slug, slug.replace("_", "-"), f"{slug}.zip"):
        assert any(fnmatchcase(name, pattern) for pattern in patterns)


def test_the_paper_s_test_sets_keep_whole_images_and_their_official_side():
    for slug, info in INFOS.items():
        if slug in TEST_SETS:
            assert not info.rules.crop_background
            assert info.official_split
    assert {slug for slug, info in INFOS.items() if info.test_folds} == {"bus_bra"}


def test_an_alias_differs_from_its_set_in_its_name_alone():
    aliases = {slug: info for slug, info in INFOS.items() if info.alias_of}
    assert aliases.keys() == {"microseg"}
    for info in aliases.values():
        other = INFOS[info.alias_of]
        differing = {field.name for field in dataclasses.fields(DatasetInfo)
                     if getattr(info, field.name) != getattr(other, field.name)}
        assert differing == {"slug", "name", "names", "alias_of"}


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, ``from a import b`` as both ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("slug", SLUGS)
def test_a_converter_imports_no_other_but_the_one_it_is_an_alias_of(slug):
    others = {f"data_prep.converters.{other}" for other in SLUGS if other not in (slug, INFOS[slug].alias_of)}
    assert not imported(FOLDER / f"{slug}.py") & others


def test_converters_are_short():
    lengths = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in FOLDER.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}

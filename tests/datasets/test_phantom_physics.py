"""The phantom's echoes, fields of view and outlines against closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ultrasam.datasets.phantom.echo import PointSpread, beam_widths, receive
from ultrasam.datasets.phantom.fov import BeamGrid, Fov, curved_fov, linear_fov, radial_fov
from ultrasam.datasets.phantom.render import Scanner, compensation_error, detect, random_scanner, render
from ultrasam.datasets.phantom.scene import Layer, Scene, Structure, View
from ultrasam.datasets.phantom.shapes import Blob, Rod, Tube, lobulated, spiculated
from ultrasam.datasets.phantom.tissue import build_tissue, smooth_field

FOVS = {"linear": linear_fov, "curved": curved_fov, "radial": radial_fov}


def make_fov(kind: str, seed: int = 0, height: int = 240, width: int = 300, depth: float = 60.0) -> Fov:
    return FOVS[kind](np.random.default_rng(seed), height, width, depth)


def plain_scanner(**changes: object) -> Scanner:
    """A scanner without chance: no gain errors, no marks, one look, hardly any noise."""
    values: dict[str, object] = {
        "dynamic_range": 60.0, "grey": 0.6, "pulse": 1.0, "beam": 1.5, "spread": 0.0, "focus": 0.5,
        "tgc_error": 0.0, "far_loss": 0.0, "noise_db": -80.0, "gamma": 1.0, "smoothing": 0.0,
        "reverberation": 0.0, "looks": 1, "bar": False, "ticks": False,
    }  # fmt: skip
    return Scanner(**{**values, **changes})  # type: ignore[arg-type]


def plain_scene(*structures: Structure, fov: Fov) -> Scene:
    return Scene([Layer(None, 0.0)], list(structures), fov.centre, fov.depth, "plain", texture=0.0)


def homogeneous(seed: int, lateral: float = 2.0, axial: float = 1.5) -> NDArray[np.complex64]:
    amplitude = np.ones((640, 256), np.float32)
    psf = PointSpread(axial, np.full(640, lateral))
    return receive(amplitude, psf, np.random.default_rng(seed))[20:-20]


@pytest.mark.parametrize(("seed", "axial"), [(1, 1.5), (2, 1.0), (3, 2.0)])
def test_envelope_of_homogeneous_tissue_is_rayleigh(seed: int, axial: float) -> None:
    envelope = np.abs(homogeneous(seed, axial=axial))
    apart = envelope[::10, ::12].ravel()  # farther apart than the point spread is wide: independent
    assert stats.kstest(apart, stats.rayleigh(scale=np.sqrt(0.5)).cdf).pvalue > 0.01
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, abs=0.05)


def test_the_rayleigh_check_rejects_other_statistics() -> None:
    bright = np.abs(homogeneous(1) + 2.0)[::10, ::12].ravel()
    bright /= np.sqrt(np.mean(bright**2))
    assert stats.kstest(bright, stats.rayleigh(scale=np.sqrt(0.5)).cdf).pvalue < 1e-6


def test_several_looks_speckle_less_than_one() -> None:
    fov = make_fov("linear")
    grid = fov.beam_grid()
    tissue = build_tissue(plain_scene(fov=fov), View(), grid, np.random.default_rng(0))
    ratios = []
    for looks in (1, 4):
        level = detect(tissue, grid, fov, plain_scanner(looks=looks), np.random.default_rng(1))[20:-20]
        ratios.append(level.mean() / level.std())
    assert ratios[0] == pytest.approx(1.913, abs=0.12)
    assert ratios[1] == pytest.approx(2 * 1.913, rel=0.08)  # four independent looks halve the spread


@pytest.mark.parametrize("amplitude", [0.1, 1.0, 7.0])
def test_mean_square_is_that_of_the_reflectivity(amplitude: float) -> None:
    map_ = np.full((640, 256), amplitude, np.float32)
    psf = PointSpread(1.4, np.linspace(1, 5, 640))
    field = receive(map_, psf, np.random.default_rng(0))[20:-20]
    assert np.mean(np.abs(field) ** 2) == pytest.approx(amplitude**2, rel=0.05)


def correlation(field: NDArray[np.complex64], rows: int, columns: int) -> float:
    a = field[: field.shape[0] - rows, : field.shape[1] - columns]
    b = field[rows:, columns:]
    return float(np.abs(np.vdot(a, b)) / np.sqrt(np.vdot(a, a).real * np.vdot(b, b).real))


@pytest.mark.parametrize(("axial", "lateral"), [(1.5, 2.0), (1.5, 4.0), (2.5, 3.0)])
def test_speckle_size_is_that_of_the_point_spread(axial: float, lateral: float) -> None:
    field = homogeneous(5, lateral, axial)
    # Two Gaussians of deviation s, displaced by d, overlap by exp(-d^2 / 4 s^2).
    assert correlation(field, 3, 0) == pytest.approx(np.exp(-9 / (4 * axial**2)), abs=0.06)
    assert correlation(field, 0, 3) == pytest.approx(np.exp(-9 / (4 * lateral**2)), abs=0.06)


def test_beam_is_narrowest_at_the_focus_and_speckle_follows() -> None:
    depths = np.arange(640) * 0.1
    widths = beam_widths(depths, 20.0, 1.5, 0.1)
    assert np.argmin(widths) == 200
    assert widths[600] == pytest.approx(np.hypot(1.5, 4.0))
    field = receive(np.ones((640, 256), np.float32), PointSpread(1.5, widths), np.random.default_rng(0))
    assert correlation(field[190:210], 0, 4) + 0.3 < correlation(field[560:620], 0, 4)


@pytest.mark.parametrize("kind", list(FOVS))
def test_speckle_is_wider_across_than_along_the_beam_in_mm(kind: str) -> None:
    fov = make_fov(kind)
    grid = fov.beam_grid()
    tissue = build_tissue(plain_scene(fov=fov), View(), grid, np.random.default_rng(0))
    scanner = random_scanner(np.random.default_rng(3))
    level = detect(tissue, grid, fov, scanner, np.random.default_rng(0))
    middle = slice(int(0.4 * fov.samples), int(0.7 * fov.samples))
    part = level[middle] - level[middle].mean()
    axial, lateral = half_width(part, 0) * grid.step, half_width(part, 1) * grid.pitch[middle].mean()
    assert lateral > 1.2 * axial


def half_width(part: NDArray[np.float32], axis: int) -> float:
    """Lag, in samples, at which the autocorrelation along an axis falls to one half."""
    spectrum = np.abs(np.fft.fft(part, axis=axis)) ** 2
    curve = np.fft.ifft(spectrum, axis=axis).real.sum(axis=1 - axis)
    curve = curve / curve[0]
    below = int(np.argmax(curve < 0.5))
    return below - 1 + (curve[below - 1] - 0.5) / (curve[below - 1] - curve[below])


@pytest.mark.parametrize("kind", list(FOVS))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scan_maps_lead_back_to_the_position_of_the_pixel(kind: str, seed: int) -> None:
    fov = make_fov(kind, seed)
    grid, (beam, sample, inside) = fov.beam_grid(), fov.scan_maps()
    x, y = fov.pixel_points()
    border = cv2.BORDER_WRAP if grid.circular else cv2.BORDER_REPLICATE
    inner = inside & (sample > 0) & (sample < fov.samples - 1)
    for values, truth in ((grid.x, x), (grid.y, y)):
        found = cv2.remap(values, beam, sample, cv2.INTER_LINEAR, borderMode=border)
        # cv2 interpolates with weights in 32nds, and beams are straight only between samples.
        assert np.abs(found - truth)[inner].max() < 0.2 * fov.spacing
    assert inside.mean() > 0.3


@pytest.mark.parametrize("kind", list(FOVS))
def test_field_of_view_is_the_set_of_pixels_within_reach(kind: str) -> None:
    fov = make_fov(kind, 1)
    inside = fov.scan_maps()[2]
    for row in range(0, fov.height, 7):
        for column in range(0, fov.width, 7):
            x = (column + 0.5 - fov.origin[0]) * fov.spacing
            y = (row + 0.5 - fov.origin[1]) * fov.spacing
            if kind == "linear":
                truth = abs(x) < fov.half_span and 0 <= y < fov.depth
            else:
                down = y if kind == "radial" else y + fov.radius
                reach, turn = np.hypot(x, down), np.arctan2(x, down)
                truth = fov.radius <= reach < fov.radius + fov.depth and abs(turn) <= fov.half_span
            assert inside[row, column] == truth


@pytest.mark.parametrize("kind", list(FOVS))
def test_picture_is_black_outside_the_field_of_view_and_not_inside(kind: str) -> None:
    fov = make_fov(kind)
    grey = render(plain_scene(fov=fov), View(), fov, plain_scanner(), np.random.default_rng(0))
    inside = fov.scan_maps()[2]
    assert grey.shape == (fov.height, fov.width)
    assert grey.dtype == np.uint8
    assert not grey[~inside].any()
    assert grey[inside].mean() > 80


def test_marks_are_burnt_in_outside_the_field_of_view_only() -> None:
    fov = make_fov("curved")
    scene, inside = plain_scene(fov=fov), fov.scan_maps()[2]
    plain = render(scene, View(), fov, plain_scanner(), np.random.default_rng(0))
    marked = render(scene, View(), fov, plain_scanner(bar=True, ticks=True), np.random.default_rng(0))
    assert (plain[inside] == marked[inside]).all()
    assert (marked[~inside] > 150).sum() > 20


def test_loss_behind_a_lesion_is_attenuation_times_its_thickness() -> None:
    fov = make_fov("linear", depth=60.0)
    grid = fov.beam_grid()
    for attenuation in (1.5, -0.5):
        lesion = Structure(Blob(0, 20, 8, 8), -10, attenuation=attenuation)
        tissue = build_tissue(plain_scene(lesion, fov=fov), View(), grid, np.random.default_rng(0))
        gain = compensation_error(tissue, grid, plain_scanner(), np.random.default_rng(0))
        behind = gain[-1, np.argmin(np.abs(grid.x[0]))]
        assert behind == pytest.approx(-attenuation * 16, abs=abs(attenuation))
        assert np.abs(gain[-1, np.abs(grid.x[0]) > 11]).max() < 1e-4


@pytest.mark.parametrize("kind", list(FOVS))
@pytest.mark.parametrize(("attenuation", "sign"), [(1.5, -1), (-0.6, 1)])
def test_picture_is_darker_behind_an_attenuating_and_brighter_behind_a_fluid_lesion(
    kind: str, attenuation: float, sign: int
) -> None:
    fov = make_fov(kind)
    lesion = Structure(Blob(0, 18 + fov.radius * (kind == "radial"), 6, 6), -10, attenuation=attenuation)
    scene = plain_scene(lesion, fov=fov)
    grey = render(scene, View(), fov, plain_scanner(), np.random.default_rng(0)).astype(float)
    x, y = fov.pixel_points()
    _, sample, inside = fov.scan_maps()
    depth = sample / fov.samples * fov.depth
    deep = inside & (depth > 28) & (depth < 50) & (y > 0)
    turned = np.arctan2(x, y - (fov.centre[0] if fov.centre else -1e9))
    unit = 18 + fov.radius if fov.centre else 1e9
    behind, beside = deep & (np.abs(turned * unit) < 3), deep & (np.abs(turned * unit) > 9)
    assert sign * (grey[behind].mean() - grey[beside].mean()) > 15


def test_echoes_fade_with_depth_by_the_uncompensated_loss() -> None:
    fov = make_fov("linear")
    grid = fov.beam_grid()
    tissue = build_tissue(plain_scene(fov=fov), View(), grid, np.random.default_rng(0))
    level = detect(tissue, grid, fov, plain_scanner(far_loss=20.0), np.random.default_rng(0))
    power = 10 * np.log10(np.mean(level.astype(float) ** 2, axis=1))
    middle, last = fov.samples // 2, fov.samples - 20
    assert power[middle - 10 : middle + 10].mean() == pytest.approx(-5.0, abs=1.0)
    assert power[last - 10 : last + 10].mean() == pytest.approx(-20 * (last / fov.samples) ** 2, abs=1.0)


def test_the_far_end_does_not_echo_the_near_one() -> None:
    amplitude = np.zeros((200, 64), np.float32)
    amplitude[0] = 1000
    field = receive(amplitude, PointSpread(1.5, np.full(200, 2.0)), np.random.default_rng(0))
    assert np.abs(field[-20:]).max() < 0.1


def test_interfaces_facing_the_beam_are_brighter_than_slanted_ones() -> None:
    fov = make_fov("linear")
    grid: BeamGrid = fov.beam_grid()
    wall = Structure(Blob(0, 30, 15, 15), -30, wall_db=10, wall=1.0, specular=4)
    tissue = build_tissue(plain_scene(wall, fov=fov), View(), grid, np.random.default_rng(0))
    level = detect(tissue, grid, fov, plain_scanner(), np.random.default_rng(0))
    near = np.abs(wall.shape.distance(grid.x, grid.y) - 0.5) < 0.5
    steep = np.abs(grid.y - 30) > 14
    flat = np.abs(grid.y - 30) < 4
    assert level[near & steep].mean() > 2 * level[near & flat].mean()


def test_areas_of_outlines_are_those_of_geometry() -> None:
    axis = (np.arange(400, dtype=np.float32) + 0.5) / 10 - 20
    x, y = np.meshgrid(axis, axis)
    area = 0.01
    ellipse = (Blob(1, -2, 9, 4, 0.6).distance(x, y) < 0).sum() * area
    assert ellipse == pytest.approx(np.pi * 36, rel=0.01)
    rod = (Rod(0, 0, 6, 1.5, 0.4).distance(x, y) < 0).sum() * area
    assert rod == pytest.approx(12 * 3 + np.pi * 1.5**2, rel=0.01)
    tube = (Tube(0, 0.0, 1.0, 10, 0.3, 2).distance(x, y) < 0).sum() * area
    assert tube == pytest.approx(40 * 4, rel=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_irregular_outlines_are_one_piece_without_holes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axis = (np.arange(300, dtype=np.float32) + 0.5) / 10 - 15
    x, y = np.meshgrid(axis, axis)
    for profile in (lobulated(rng, 0.1), spiculated(rng, 0.45)):
        mask = (Blob(0, 0, 6, 5, 0.3, profile).distance(x, y) < 0).astype(np.uint8)
        assert cv2.connectedComponents(mask, connectivity=4)[0] == 2
        assert cv2.connectedComponents(1 - mask, connectivity=8)[0] == 2


def test_distance_of_a_circle_is_exact_at_its_outline() -> None:
    x = np.linspace(4.5, 5.5, 11, dtype=np.float32)[None]
    assert Blob(0, 0, 5, 5).distance(x, np.zeros_like(x)) == pytest.approx(x - 5, abs=0.06)


def test_smooth_field_has_unit_spread_and_closes_on_a_circle() -> None:
    values = np.stack([smooth_field(np.random.default_rng(seed), (90, 120), (9, 12)) for seed in range(40)])
    assert values.mean() == pytest.approx(0, abs=0.1)
    assert values.std() == pytest.approx(1, abs=0.15)
    ring = smooth_field(np.random.default_rng(0), (90, 120), (9, 12), circular=True)
    steps = np.abs(np.diff(ring, axis=1))
    assert np.abs(ring[:, 0] - ring[:, -1]).max() <= steps.max()


def test_view_moves_the_scene_by_what_it_says() -> None:
    view = View(angle=np.pi / 2, shift=(3.0, 1.0), scale=2.0, pivot=(1.0, 1.0))
    # The pivot goes to pivot + shift; one mm to its right in the scene lies 2 mm below it in the picture.
    points = view.scene_points(np.float32([[4.0, 4.0]]), np.float32([[2.0, 4.0]]))
    assert points[0] == pytest.approx(np.array([[1.0, 2.0]]), abs=1e-5)
    assert points[1] == pytest.approx(np.array([[1.0, 1.0]]), abs=1e-5)

"""Echoes of random scatterers: reflectivity convolved with a pulse along and a beam profile across."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ultrasam.datasets.phantom.shapes import Plane

# Cycles a sample of the pulse: a quarter leaves the widest band on either side of it.
_CARRIER = 0.25


@dataclass(frozen=True)
class PointSpread:
    """The echo of a single scatterer, separable at each depth.

    Attributes:
        axial: standard deviation of the pulse's Gaussian envelope, samples.
        lateral: float64 (samples,), standard deviation of the beam profile at each depth, beams.
    """

    axial: float
    lateral: NDArray[np.float64]


def beam_widths(
    depths: NDArray[np.float64], focus: float, narrowest: float, spread: float
) -> NDArray[np.float64]:
    """Width of a focused beam by depth.

    Args:
        depths: mm, any shape.
        focus: depth of the focus, mm.
        narrowest: width there, mm.
        spread: growth of the width far from the focus, mm a mm.

    Returns:
        widths in mm, as for a Gaussian beam.
    """
    return np.hypot(np.float64(narrowest), spread * (depths - focus))


def receive(
    amplitude: Plane, psf: PointSpread, rng: np.random.Generator, coherent: Plane | None = None
) -> NDArray[np.complex64]:
    """Simulate the analytic echo signal of a field of scatterers.

    Its modulus is Rayleigh distributed where the amplitude is even; its mean square is the square of the
    amplitude there.

    Args:
        amplitude: float32 (samples, beams), root mean square reflectivity.
        psf: the point spread; across the beams it wraps around.
        rng: source of the scatterers.
        coherent: float32 (samples, beams), reflectivity that is not random (interfaces), if any.

    Returns:
        complex64 (samples, beams).
    """
    samples, beams = amplitude.shape
    # Complex, because scatterers lie at any depth between samples, so that their echoes have any phase.
    chance = rng.standard_normal((samples, 2 * beams), dtype=np.float32).view(np.complex64)
    scatterers = chance * (amplitude * np.float32(np.sqrt(0.5)))
    if coherent is not None:
        scatterers += coherent
    # Silence after the last sample, so that the echo of the skin does not wrap around to the far end.
    padded = scipy.fft.next_fast_len(samples + int(6 * psf.axial))
    # Frequencies are told apart modulo 1 only; a jump at 0.5 would make the pulse ring.
    offset = (np.fft.fftfreq(padded) - _CARRIER + 0.5) % 1 - 0.5
    axial = np.exp(-2 * (np.pi * psf.axial * offset) ** 2)
    axial /= np.sqrt(np.mean(axial**2))
    lateral = np.exp(-2 * (np.pi * psf.lateral[:, None] * np.fft.fftfreq(beams)) ** 2)
    lateral /= np.sqrt(np.mean(lateral**2, axis=1, keepdims=True))
    field = scipy.fft.fft(scatterers, n=padded, axis=0)
    field = scipy.fft.ifft(field * axial.astype(np.float32)[:, None], axis=0, overwrite_x=True)
    field = scipy.fft.fft(field[:samples], axis=1)
    return scipy.fft.ifft(field * lateral.astype(np.float32), axis=1, overwrite_x=True)

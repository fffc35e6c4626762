"""Echoes of random scatterers: reflectivity convolved with a pulse along and a beam profile across."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ultrasam.datasets.phantom.shapes import Plane

# Cycles a sample of the pulse: a quarter keeps positive and negative frequencies apart, so that the echo of
# real scatterers is a circular complex Gaussian field.
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
    scatterers = rng.standard_normal(amplitude.shape, dtype=np.float32) * amplitude
    if coherent is not None:
        scatterers += coherent
    # Silence after the last sample, so that the echo of the skin does not wrap around to the far end.
    padded = scipy.fft.next_fast_len(samples + int(6 * psf.axial))
    axial = np.exp(-2 * (np.pi * psf.axial * (np.fft.fftfreq(padded) - _CARRIER)) ** 2)
    axial /= np.sqrt(np.mean(axial**2))
    lateral = np.exp(-2 * (np.pi * psf.lateral[:, None] * np.fft.fftfreq(beams)) ** 2)
    lateral /= np.sqrt(np.mean(lateral**2, axis=1, keepdims=True))
    field = scipy.fft.fft(scatterers, n=padded, axis=0)
    field = scipy.fft.ifft(field * axial.astype(np.float32)[:, None], axis=0, overwrite_x=True)
    field = scipy.fft.fft(field[:samples], axis=1)
    return scipy.fft.ifft(field * lateral.astype(np.float32), axis=1, overwrite_x=True)

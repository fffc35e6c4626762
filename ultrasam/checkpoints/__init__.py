"""Reading and writing of weight files: formats, safe loading, cards."""

from ultrasam.checkpoints.arch import ArchInfo, describe
from ultrasam.checkpoints.cards import CARDS, KNOWN_SHA256, card_named
from ultrasam.checkpoints.convert import convert_released, convert_to_released
from ultrasam.checkpoints.formats import FORMATS, detect_format, unwrap
from ultrasam.checkpoints.hashing import sha256_of
from ultrasam.checkpoints.loading import LoadReport, Weights, load_checkpoint, read_weights
from ultrasam.checkpoints.network import Network, load_network, network_of
from ultrasam.checkpoints.reading import safe_load
from ultrasam.checkpoints.saving import save_checkpoint
from ultrasam.checkpoints.weights import resolve_weights

__all__ = [
    "CARDS",
    "FORMATS",
    "KNOWN_SHA256",
    "ArchInfo",
    "LoadReport",
    "Network",
    "Weights",
    "card_named",
    "convert_released",
    "convert_to_released",
    "describe",
    "detect_format",
    "load_checkpoint",
    "load_network",
    "network_of",
    "read_weights",
    "resolve_weights",
    "safe_load",
    "save_checkpoint",
    "sha256_of",
    "unwrap",
]

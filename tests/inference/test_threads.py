"""Objects shared out among threads: everyone once, in order, and the settings as they were."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrasam.inference.decoding import Decoder
from ultrasam.inference.threads import OBJECTS_A_THREAD, share_out
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.prompt_encoder import Prompts


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 50), threads=st.integers(1, 4))
def test_every_object_once_in_order(count, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = share_out(lambda rows: list(range(count))[rows], count)
        assert [number for part in parts for number in part] == list(range(count))
        assert len(parts) == (threads if count >= OBJECTS_A_THREAD * threads else 1)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_each_thread_computes_alone_and_without_gradients(two_threads):
    found = share_out(lambda rows: (torch.get_num_threads(), torch.is_grad_enabled(), threading.get_ident()), 20)
    assert {(count, grad) for count, grad, _ in found} == {(1, False)}
    assert threading.get_ident() not in {name for _, _, name in found}


def test_an_error_is_passed_on_and_the_threads_are_as_before(two_threads):
    def fail(rows):
        raise ValueError(rows)

    with pytest.raises(ValueError, match="slice"):
        share_out(fail, 20)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("masked", [False, True])
def test_shared_out_objects_have_the_answers_of_the_network(two_threads, masked):
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 128).eval()
    embedding = torch.randn(1, 256, 8, 8)
    corners = torch.rand(20, 2) * 60
    boxes = list(torch.cat([corners, corners + 40], dim=1))
    masks = torch.randn(20, 1, 32, 32) if masked else None
    prompts = Prompts.build([None] * 20, [None] * 20, boxes, torch.zeros(20, dtype=torch.long), masks)
    with torch.no_grad():
        expected = sam.decode(embedding, prompts, True)
    torch.testing.assert_close(Decoder(sam, embedding).decode(prompts, True, False), expected, rtol=1e-4, atol=2e-6)

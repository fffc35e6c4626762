"""Objects that are marked click by click: corrections, undo and redo, copies."""

import pytest
import torch
from tiny_models import noise, tiny_model

from ultrasam.errors import PromptError
from ultrasam.inference import objects
from ultrasam.inference.prompt import Prompt


@pytest.fixture
def session():
    return tiny_model().session(noise())


def close(first, second):
    return torch.allclose(first, second, rtol=1e-4, atol=1e-5)


def test_a_click_corrects_the_answer_before(session):
    state = session.add_object()
    state.add_point(40, 50)
    first = session.segment()
    assert close(first.logits, session.predict(points=[[40, 50]]).logits)
    state.add_point(60, 20, 0)
    second = session.segment()
    both = Prompt.of([[40, 50], [60, 20]], [1, 0], logits=first.logits[0])
    assert close(second.logits, session.predict(prompts=[both]).logits)
    state.set_box([10, 10, 80, 80])
    boxed = Prompt.of([[40, 50], [60, 20]], [1, 0], [10, 10, 80, 80])
    assert close(session.segment().logits, session.predict(prompts=[boxed]).logits)


def test_clicks_before_an_answer_count_together(session):
    state = session.add_object()
    state.add_point(40, 50)
    state.add_point(60, 20)
    assert close(session.segment().logits, session.predict(points=[[40, 50], [60, 20]]).logits)


def test_undo_and_redo(session):
    state = session.add_object()
    assert not state.can_undo and not state.undo() and not state.redo()
    answers = []
    for x in (40, 60, 80):
        state.add_point(x, 50)
        answers.append(session.segment())
    assert state.undo() and torch.equal(session.segment().logits, answers[1].logits)
    assert state.undo() and torch.equal(session.segment().logits, answers[0].logits)
    assert session.segment().scores.tolist() == answers[0].scores.tolist()
    assert state.undo() and not state.undo()
    nothing = session.segment()
    assert not nothing.masks.any() and nothing.scores.tolist() == [0] and nothing.boxes.tolist() == [[0, 0, 0, 0]]
    for answer in answers:
        assert state.redo() and torch.equal(session.segment().logits, answer.logits)
    assert not state.redo()
    # A new click after an undo takes the other branch.
    state.undo()
    state.add_point(5, 5, 0)
    assert not state.can_redo and state.prompt.points.tolist() == [[40, 50], [60, 50], [5, 5]]


def test_only_what_changed_is_decoded(session, monkeypatch):
    asked = []
    decode = session.decoder.decode

    def counted(prompts, *arguments, **named):
        asked.append(len(prompts))
        return decode(prompts, *arguments, **named)

    monkeypatch.setattr(session.decoder, "decode", counted)
    for x in (30, 60, 90):
        session.add_object().add_point(x, 40)
    session.segment()
    session.objects[1].add_point(20, 20)
    session.segment()
    session.objects[1].undo()
    session.segment()
    assert asked == [3, 3, 1, 1], "two passes of three objects, then of the one that was clicked on"


def test_a_refused_click_changes_nothing(session):
    state = session.add_object()
    with pytest.raises(PromptError, match="negative"):
        state.add_point(40, 50, 0)
    assert state.step is None and not state.can_undo
    state.add_point(40, 50)
    for change, values in ((state.add_point, (120, 3)), (state.set_box, ([5, 5, 4, 9],)), (state.add_point, (1, 1, 7))):
        with pytest.raises(PromptError):
            change(*values)
    with pytest.raises(PromptError, match="32 x 32"):
        state.set_logits(torch.zeros(3, 3))
    assert state.prompt.points.tolist() == [[40, 50]] and state.prompt.box is None
    # With an answer, a negative click alone has something to correct.
    state.undo()
    state.set_box([10, 10, 50, 50])
    session.segment()
    state.add_point(12, 12, 0)
    assert session.segment().scores.shape == (1,)


def test_a_box_can_be_removed(session):
    state = session.add_object()
    state.set_box([10, 10, 50, 50])
    session.segment()
    state.set_box(None)
    assert not session.segment().masks.any()
    state.undo()
    assert state.prompt.box is not None and state.logits is not None


def test_a_mask_can_be_the_start(session):
    first = session.predict(box=[10, 10, 50, 50])
    state = session.add_object()
    state.set_logits(first.logits[0])
    assert close(session.segment().logits, session.predict(prompts=[Prompt(logits=first.logits[0])]).logits)


def test_copies_are_cheap_and_independent(session):
    state = session.add_object()
    state.add_point(40, 50)
    first = session.segment()
    other = session.copy()
    assert other.image is session.image and other.embedding is session.embedding and other.decoder is session.decoder
    other.objects[0].add_point(60, 20, 0)
    other.add_object().add_point(3, 3)
    assert len(session.objects) == 1 and not torch.equal(other.segment().logits[0], first.logits[0])
    assert torch.equal(session.segment().logits, first.logits)


def test_history_is_bounded(session, monkeypatch):
    monkeypatch.setattr(objects, "HISTORY", 3)
    state = session.add_object()
    for x in range(5):
        state.add_point(10 + x, 50)
    assert sum(state.undo() for _ in range(9)) == 3

"""Prompted classification as a model: what trains, what costs no memory, ablations, weights and caches."""

import pytest
import torch
from mini_batches import SIZE
from mini_classes import labelled_batch
from torch.autograd.graph import saved_tensors_hooks

from ultrasam.checkpoints import save_checkpoint
from ultrasam.engine.checkpointing import load_weights
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam
from ultrasam.models.prompted_classifier import PromptedClassifier, join_prompts

ABLATIONS = {
    "full": {},
    "no_zg": dict(global_vector=False),
    "no_eg": dict(global_encoder="none"),
    "no_eo": dict(object_encoder=False),
    "no_prompt": dict(prompt=False),
    "shared": dict(global_encoder="shared"),
    "decoder": dict(train_mask_decoder=True),
}


def small(seed=0, **options):
    torch.manual_seed(seed)
    return PromptedClassifier(**{"classes": ["benign", "malignant"], "arch": "vit_tiny", "image_size": SIZE,
                                 "dropout": 0.0, **options})  # fmt: skip


def loss_of(model, batch):
    return model(**model.data_preprocessor(batch), mode="loss")["loss_class"]


def predicted(model, batch):
    model.eval()
    found = model(**model.data_preprocessor(batch), mode="predict")
    return torch.cat([sample.pred_instances.probabilities for sample in found])


@pytest.mark.parametrize("name", ABLATIONS)
def test_exactly_what_trains_has_a_gradient(name):
    """No parameter waits for a gradient that never comes, and nothing frozen gets one."""
    model = small(**ABLATIONS[name]).train()
    loss_of(model, labelled_batch(2, 0, 1)).backward()
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    graded = {key for key, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    # A key's bias shifts all its scores alike, which softmax takes away again.
    assert {key for key in trained - graded if not key.endswith("k_proj.bias")} == set()
    assert graded <= trained
    outer = {key.split(".")[0] for key in trained}
    assert outer == {"head"} | ({"global_encoder"} if model.global_encoder is not None else set()) | (
        {"sam"} if name in ("shared", "decoder") else set()
    )


def test_object_encoder_keeps_nothing_for_the_backward_pass():
    """Measured: autograd saves no tensor while E_o, the prompt encoder and the mask decoder run."""
    model = small().train()
    inside, saved = [False], {True: 0, False: 0}

    def watch(function):
        def watched(*arguments):
            inside[0] = True
            try:
                return function(*arguments)
            finally:
                inside[0] = False

        return watched

    model.object_stages, model.objects = watch(model.object_stages), watch(model.objects)

    def pack(tensor):
        saved[inside[0]] += tensor.numel() * tensor.element_size()
        return tensor

    batch = model.data_preprocessor(labelled_batch(1, 2))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = model.scores(batch["inputs"], join_prompts(batch["data_samples"], torch.device("cpu")))
    assert scores.requires_grad and saved[False] > 0 and saved[True] == 0
    # The shared encoder, which trains, does keep its activations: the watch works.
    model = small(global_encoder="shared").train()
    model.object_stages = watch(model.object_stages)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model.scores(batch["inputs"], join_prompts(batch["data_samples"], torch.device("cpu")))
    assert saved[True] > 0


def test_frozen_parts_stay_as_they_are():
    model = small(class_loss=dict(form="focal")).train()
    assert not model.sam.image_encoder.training and model.global_encoder.training
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    loss_of(model, labelled_batch(1, 1)).backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and not [key for key in changed if key.startswith("sam.")]


def test_flat_list_over_the_batch():
    model = small()
    together = predicted(model, labelled_batch(2, 0, 3))
    assert together.shape == (5, 2)
    torch.testing.assert_close(together.sum(1), torch.ones(5))
    batch = labelled_batch(2, 0, 3)
    for number, rows in ((0, slice(0, 2)), (2, slice(2, 5))):
        alone = {key: value[number : number + 1] for key, value in batch.items()}
        torch.testing.assert_close(predicted(model, alone), together[rows], atol=1e-5, rtol=1e-5)


def test_images_without_objects_can_be_trained_on():
    model = small().train()
    loss = loss_of(model, labelled_batch(0, 0))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.abs().sum() for p in model.parameters() if p.requires_grad)
    assert predicted(model, labelled_batch(0, 0)).shape == (0, 2)


def test_ablations_differ_and_the_hidden_prompt_is_hidden():
    batch = labelled_batch(2, 1, prompt="box")
    found = {name: predicted(small(**ABLATIONS[name]), batch) for name in ABLATIONS if name != "decoder"}
    names = list(found)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            assert (found[first] - found[second]).abs().max() > 1e-6, (first, second)
    torch.testing.assert_close(found["no_prompt"][0], found["no_prompt"][1])
    assert (found["full"][0] - found["full"][1]).abs().max() > 1e-6
    points = predicted(small(), labelled_batch(2, 1, prompt="point"))
    assert (points - found["full"]).abs().max() > 1e-6


def test_weights_of_sam_fill_both_encoders_and_the_head(tmp_path):
    torch.manual_seed(9)
    source = build_sam("vit_tiny", SIZE)
    source.set_mlp_residual("double")
    path = tmp_path / "sam.pth"
    save_checkpoint(path, source.state_dict(), {"architecture": "vit_tiny", "mlp_residual": "double"})
    for model in (small(weights=str(path)), small()):
        load_weights(model, path)
        for key, value in source.image_encoder.state_dict().items():
            assert torch.equal(model.sam.image_encoder.state_dict()[key], value)
            assert torch.equal(model.global_encoder.state_dict()[key], value)
        for key, value in source.mask_decoder.transformer.state_dict().items():
            assert torch.equal(model.head.transformer.state_dict()[key], value)
        predicted(model, labelled_batch(1))
        assert model.sam.mlp_residual == "double"
        assert {layer.mlp_residual for layer in model.head.transformer.layers} == {"double"}


def test_whole_checkpoint_comes_back():
    """E_g and the head of a checkpoint win over what loading SAM's part starts them from."""
    model, other = small(0).train(), small(1)
    with torch.no_grad():
        for parameter in [*model.global_encoder.parameters(), *model.head.parameters()]:
            parameter.add_(0.01)
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_cache_changes_nothing(tmp_path):
    batch = labelled_batch(1, 2)
    plain = small(trained_stages=2)
    kept = small(trained_stages=2, cache_dir=str(tmp_path / "kept"))
    for _ in range(2):
        torch.testing.assert_close(predicted(kept, batch), predicted(plain, batch), atol=0, rtol=0)
    # One file of E_o and one of E_g's frozen stages for each image.
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 4
    assert (kept.object_stages.cache.hits, kept.global_stages.cache.hits) == (2, 2)
    gradients = []
    for model in (plain, kept):
        model.train()
        loss_of(model, batch).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)
    load_weights_again = small(3, trained_stages=2).state_dict()
    kept.load_state_dict(load_weights_again)
    assert kept.object_stages.cache is None and kept.global_stages.cache is None


def test_trained_stages_are_the_last_ones():
    model = small(trained_stages=1)
    trained = {key for key, p in model.global_encoder.named_parameters() if p.requires_grad}
    assert trained and all(key.startswith("neck.") for key in trained)
    assert not any(p.requires_grad for p in small(trained_stages=0).global_encoder.parameters())
    stages = len(model.sam.image_encoder.stages())
    assert all(p.requires_grad for p in small(trained_stages=stages).global_encoder.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(object_encoder=False, global_encoder="none"), "global_encoder must be 'own', got 'none'"),
        (dict(object_encoder=False, train_mask_decoder=True), "train_mask_decoder needs object_encoder"),
        (dict(global_encoder="none", trained_stages=1), "trained_stages=1 counts stages of E_g"),
        (dict(global_encoder="both"), "global_encoder must hold only"),
        (dict(head_start="sam"), "head_start must hold only"),
        (dict(chunk=0), "chunk must be at least 1"),
        (dict(trained_stages=99), "0 to 6 of them train, got 99"),
        (dict(classes=["a"]), "classes must be a list of two or more"),
        (dict(classes="benign"), "classes must be a list of two or more"),
        (dict(arch="vit_x"), "PromptedClassifier cannot be built"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_data_of_other_classes_are_refused():
    model = small()
    with pytest.raises(ConfigError, match=r"the model has the classes \['benign', 'malignant'\]"):
        predicted(model, labelled_batch(1, classes=("malignant", "benign")))
    with pytest.raises(ConfigError, match="give data samples with their prompts"):
        model([torch.zeros(3, 8, 8, dtype=torch.uint8)])


def test_card_says_what_the_network_is():
    card = small(global_vector=False).card()
    assert card["task"] == "prompted-classify" and card["classes"] == ["benign", "malignant"]
    assert (card["global_vector"], card["global_encoder"], card["architecture"]) == (False, "own", "vit_tiny")

"""Our networks and losses against the official code's numbers (tests/support/official.npz)."""

from __future__ import annotations

import pytest
import torch
from support import official

from fra.method import losses, regions
from fra.weights.official import official_name

DTYPES = [torch.float32, torch.float64]


def assert_close(actual: torch.Tensor, key: str, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest entry (what float32 leaves of a sum of many terms)."""
    expected = official.tensor(key, torch.float64)
    error = (actual.detach().double().reshape(expected.shape) - expected).abs().max() / expected.abs().max()
    assert error < tolerance, f"{key}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_loss(dtype: torch.dtype) -> None:
    def given(key: str) -> torch.Tensor:
        return official.tensor(key, dtype)

    weight = official.number("cfg/decorrelation_weight")
    student_temp, teacher_temp = official.number("cfg/student_temp"), official.number("cfg/teacher_temp")
    assert_close(losses.sinkhorn(given("sinkhorn/in")), "sinkhorn/out")
    assert_close(losses.global_consistency(given("global/pred"), given("global/target")), "global/loss")
    assert_close(
        losses.region_consistency(given("region/pred"), given("region/target"), weight), "region/loss"
    )
    relation = losses.semantic_relation(
        given("relation/student"), given("relation/teacher"), student_temp, teacher_temp
    )
    assert_close(relation, "relation/loss")


def test_sine_position() -> None:
    size = official.size("projection_dim"), official.size("height"), official.size("width")
    assert_close(regions.sine_position(size[1], size[2], size[0]), "position/sine")


@pytest.mark.parametrize("dtype", DTYPES)
def test_embeddings_of_each_network(dtype: torch.dtype) -> None:
    model = official.networks(dtype)
    for network in ("online", "target"):
        for number, view in enumerate(official.views(dtype), start=1):
            seen = getattr(model, network)(view)
            where = f"out/{network}/view{number}"
            assert_close(seen.global_BD, f"{where}/global_embedding")
            assert_close(seen.regions.embeddings_BKD, f"{where}/region_embeddings")
            assert_close(seen.regions.scores_BKHW, f"{where}/scores")
            assert_close(seen.regions.heatmaps_BKHW, f"{where}/heatmaps")


@pytest.mark.parametrize("dtype", DTYPES)
def test_objective_and_its_parts(dtype: torch.dtype) -> None:
    parts = official.networks(dtype).losses(*official.views(dtype))
    assert set(parts) == {"total", "global", "region", "relation"}
    assert_close(parts["total"], "out/loss")
    assert_close(parts["global"], "out/loss_global")
    assert_close(parts["region"], "out/loss_region")
    assert_close(parts["relation"], "out/loss_relation")
    assert_close(parts["global"] + parts["region"], "out/loss_consistency")


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(dtype: torch.dtype) -> None:
    model = official.networks(dtype)
    model.losses(*official.views(dtype))["total"].backward()
    gradients = {official_name(name): p.grad for name, p in model.trained_parameters()}
    expected = official.under("grad/")
    assert gradients.keys() == expected.keys()

    def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([tensors[name].double().flatten() for name in sorted(expected)])

    whole = flat(expected)
    assert (flat(gradients) - whole).norm() / whole.norm() < 1e-5
    for name in expected:
        # Gradients of the mask decoder are what remains of large terms that cancel: float32 leaves 1e-4 of
        # them, and nothing of the first layer's attention over inputs that are all zero.
        if expected[name].abs().max() > 1e-8:
            assert_close(
                gradients[name], f"grad/{name}", 3e-4 if "proj_attn" in name or "pixel" in name else 3e-5
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_prototypes_follow_the_mask_embeddings_when_told(dtype: torch.dtype) -> None:
    model = official.networks(dtype)
    targets = [model.embed_target(view) for view in official.views(dtype)]
    online = [
        model(view, same, other).online.regions.masks_KD
        for view, same, other in zip(official.views(dtype), targets, targets[::-1], strict=True)
    ]
    assert torch.equal(
        model.online.region_neck.masks_KD, official.tensor("state/online_net.neck.proto", dtype)
    )
    model.update_prototypes(online, [seen.regions.masks_KD for seen in targets], momentum=0.9)
    assert_close(model.online.region_neck.masks_KD, "out/proto_online")
    assert_close(model.target.region_neck.masks_KD, "out/proto_target")


@pytest.mark.parametrize("dtype", DTYPES)
def test_target_update(dtype: torch.dtype) -> None:
    model = official.networks(dtype)
    before = {name: buffer.clone() for name, buffer in model.target.named_buffers()}
    model.update_target(official.number("ema/momentum_37_100"))
    ours = {official_name(name): value for name, value in model.state_dict().items()}
    for name in official.under("ema/after/"):
        assert_close(ours[name], f"ema/after/{name}")
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.target.named_buffers())

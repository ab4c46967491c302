from __future__ import annotations

import math

import pytest
import torch

from fra.method import attention, regions


def test_position_of_the_last_row_and_column_is_2_pi() -> None:
    code = regions.sine_position(3, 5, 8)
    assert code.shape == (8, 3, 5)
    y, x = code[:4], code[4:]
    assert (y == y[:, :, :1]).all()
    assert (x == x[:, :1, :]).all()
    torch.testing.assert_close(
        y[0, :, 0], torch.tensor([1 / 3, 2 / 3, 1]).mul(2 * math.pi).sin(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(x[1, 0], (torch.arange(1, 6) / 5 * 2 * math.pi).cos(), atol=1e-5, rtol=0)


def test_position_needs_a_multiple_of_4_channels() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        regions.sine_position(2, 2, 6)


def test_pooling_under_even_heatmaps_is_the_mean() -> None:
    features = torch.randn(2, 9, 5)
    pooled = regions.pool(features, torch.full((2, 3, 9), 0.25))
    torch.testing.assert_close(pooled, features.mean(1, keepdim=True).expand(-1, 3, -1))


def test_pooling_under_a_heatmap_of_one_pixel_is_that_pixel() -> None:
    features = torch.randn(1, 9, 5)
    heatmaps = torch.zeros(1, 1, 9)
    heatmaps[0, 0, 4] = 0.3
    torch.testing.assert_close(regions.pool(features, heatmaps)[0, 0], features[0, 4])


def test_heatmaps_share_each_pixel_among_the_masks() -> None:
    maps = regions.heatmaps(torch.randn(2, 4, 6))
    torch.testing.assert_close(maps.sum(1), torch.full((2, 6), 1 + 4e-7))
    assert (maps > 0).all()


def test_scores_are_cosines() -> None:
    masks = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    pixels = torch.tensor([[[3.0, 0.0], [1.0, 1.0], [0.0, -4.0]]])
    expected = torch.tensor([[[1.0, 0.5**0.5, 0.0], [0.0, 0.5**0.5, -1.0]]])
    torch.testing.assert_close(regions.cosine_scores(masks, pixels), expected)


def test_fitting_the_last_layer_changes_it_as_little_as_possible() -> None:
    torch.manual_seed(0)
    decoder = regions.MaskDecoder(12, 16, 3, 0.0)
    features, goal = torch.randn(2, 6, 12), torch.randn(3, 16)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    hidden = decoder.hidden(features, 2, 3).mean(0)
    decoder.fit_last_layer(hidden, goal)
    torch.testing.assert_close(decoder(features, 2, 3).mean(0), goal, rtol=0, atol=1e-4)
    changed = [name for name, value in decoder.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["mask_embed.4.weight"]
    # What is at right angles to the queries' rows is turned into what it was: the change is the least.
    other = torch.randn(16)
    other -= torch.linalg.pinv(hidden) @ (hidden @ other)
    old, new = before["mask_embed.4.weight"], decoder.mask_embed[-1].weight
    torch.testing.assert_close(new @ other, old @ other, rtol=0, atol=1e-4)


def test_attention_is_that_of_pytorchs_module() -> None:
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(16, 4, batch_first=True).double()
    torch.nn.init.normal_(module.in_proj_bias)
    x, query, pixels = (torch.randn(3, n, 16, dtype=torch.float64) for n in (5, 5, 7))
    position = torch.randn(7, 16, dtype=torch.float64)
    own = attention.self_attention(module, x + query, x, 3, None)
    torch.testing.assert_close(own, module(x + query, x + query, x, need_weights=False)[0])
    found = attention.cross_attention(module, query, pixels, position, None)
    torch.testing.assert_close(found, module(query, pixels + position, pixels, need_weights=False)[0])
    shared = attention.cross_attention(module, query[:1], pixels, position, None)
    torch.testing.assert_close(shared[0], found[0])


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_factors_are_independent_and_their_mean_is_1(probability: float) -> None:
    torch.manual_seed(0)
    first, second = attention.dropout_factors(probability, [(300, 1001), (7, 143, 300)], torch.zeros(()))
    for factors in (first, second):
        assert factors.unique().tolist() == pytest.approx([0, 1 / (1 - probability)], rel=1e-4)
        assert (factors == 0).float().mean().item() == pytest.approx(probability, abs=0.005)
        assert factors.mean().item() == pytest.approx(1, abs=0.01)
    assert first.shape == (300, 1001)
    pairs = torch.corrcoef(torch.stack([first.flatten(), first.flatten().roll(1), second.flatten()]))
    assert (pairs - torch.eye(3)).abs().max() < 0.01


def test_dropout_in_the_decoder_is_that_of_pytorchs_layer() -> None:
    """The mean and deviation over 4,000 draws, against a transformer decoder layer of PyTorch with its dropout."""
    torch.manual_seed(0)
    layer = regions.DecoderLayer(16, 4)
    theirs = torch.nn.TransformerDecoderLayer(16, 4, 16, dropout=0.2, batch_first=True).train()
    renamed = {name.replace("cross_attn", "multihead_attn"): w for name, w in layer.state_dict().items()}
    theirs.load_state_dict(renamed)
    x, pixels, none = torch.randn(1, 3, 16), torch.randn(1, 6, 16), torch.zeros(1, 3, 16)
    shapes = [(4 * 4000, 3, 3), (4000, 3, 16), (4 * 4000, 3, 6), *[(4000, 3, 16)] * 3]
    factors = regions.LayerDropout(*attention.dropout_factors(0.2, shapes, x))
    many = pixels.expand(4000, -1, -1)
    with torch.no_grad():
        ours = layer(x.expand(4000, -1, -1), none, many, torch.zeros(6, 16), factors)
        expected = theirs(x.expand(4000, -1, -1), many)
    torch.testing.assert_close(ours.mean(0), expected.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(ours.std(0), expected.std(0), rtol=0.1, atol=0.02)


def test_decoder_projects_only_where_sizes_differ() -> None:
    assert not list(regions.MaskDecoder(16, 16, 3, 0.0).input_proj.parameters())
    decoder = regions.MaskDecoder(12, 16, 3, 0.0)
    assert decoder(torch.randn(2, 6, 12), 2, 3).shape == (2, 3, 16)
    with pytest.raises(ValueError, match="multiple of the 8"):
        regions.MaskDecoder(12, 12, 3, 0.0)

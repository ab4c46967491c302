"""Parameters of the views (section `views` of params.yaml)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from fra.config import CHECKED, Ascending, PositiveShare, Share


@dataclass(frozen=True, config=CHECKED)
class ViewsConfig:
    """Distribution of the views. Defaults: the official code's (BYOL's augmentations; Grill et al. 2020, table 6)."""

    crop_scale: Annotated[tuple[PositiveShare, PositiveShare], Ascending] = (0.2, 1.0)
    """Area of a crop, as a share of the image's: lowest, highest."""
    crop_ratio: Annotated[tuple[PositiveFloat, PositiveFloat], Ascending] = (3 / 4, 4 / 3)
    """Width divided by height of a crop: lowest, highest."""
    flip_probability: Share = 0.5
    """Probability that a view is mirrored."""
    jitter_probability: Share = 0.8
    """Probability that a view's colours are changed by the next four."""
    brightness: NonNegativeFloat = 0.4
    """Brightness is multiplied by 1 ± this, at most."""
    contrast: NonNegativeFloat = 0.4
    """Contrast is multiplied by 1 ± this, at most."""
    saturation: NonNegativeFloat = 0.2
    """Saturation is multiplied by 1 ± this, at most."""
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """Hue is turned by this share of the colour circle, at most."""
    grey_probability: Share = 0.2
    """Probability that a view is grey."""
    blur_probability: tuple[Share, Share] = (1.0, 0.1)
    """Probability of a Gaussian blur, of the first and the second view."""
    blur_sigma: Annotated[tuple[PositiveFloat, PositiveFloat], Ascending] = (0.1, 2.0)
    """Standard deviation of the blur, in pixels: lowest, highest."""
    solarize_probability: tuple[Share, Share] = (0.0, 0.2)
    """Probability that bright pixels are inverted, of the first and the second view."""
    mean: tuple[float, float, float] = (0.5231, 0.4044, 0.3489)
    """Mean of the training set's red, green and blue (0 to 1), subtracted from a view."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.2536, 0.2194, 0.2070)
    """Standard deviation of the training set's red, green and blue, by which a view is divided."""

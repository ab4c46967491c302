"""Rules on faces: those found in photographs, those seen in the images, and landmarks."""

from __future__ import annotations

from fra.validation.config import Severity, ValidateConfig
from fra.validation.rules.rule import Rule, between, is_null, is_true

QUARANTINE: Severity = "quarantine"
TOGETHER = 2
"""Landmarks that may be at one place, as those of closed lips and lids are."""


def photographs() -> list[Rule]:
    """Returns the rule on photographs that faces are cropped from (dataset.faces=detect)."""
    return [
        Rule("has a face", QUARANTINE, "the photograph has no face to crop", is_null("no_face")),
    ]


def faces(config: ValidateConfig) -> list[Rule]:
    """Returns the rules on the faces that are found in the images; they only warn, since detectors err."""
    score, share, roll = config.min_face_score, config.min_face_share, config.max_face_roll
    return [
        Rule(
            "image shows a face",
            "warn",
            f"no face is found with a score of at least {score}",
            between("faces", 1),
            report_column="face_score",
        ),
        Rule(
            "image shows one face",
            "warn",
            "several faces are found, each at least half as large as the largest",
            between("faces", high=1),
        ),
        Rule(
            "face is large enough",
            "warn",
            f"the longer side of the face is less than {share:.0%} of the image's",
            between("face_share", share),
        ),
        Rule(
            "face is in the centre",
            "warn",
            f"the centre of the face is further than {config.max_face_offset:.0%} of the side from the image's",
            between("face_offset", high=config.max_face_offset),
        ),
        Rule(
            "face is upright",
            "warn",
            f"the face is rotated by more than {roll:.0f}° in the image plane (measured in steps of 45°)",
            between("face_roll", high=roll),
        ),
    ]


def landmarks(config: ValidateConfig) -> list[Rule]:
    """Returns the rules on landmarks, which are in pixels of the upright image."""
    margin, apart, roll = config.landmark_margin, config.min_eye_distance, config.max_roll
    return [
        Rule(
            "landmark count",
            QUARANTINE,
            "the number of landmarks differs from that of most images",
            is_true("landmark_count_fits"),
            report_column="landmark_count",
        ),
        Rule(
            "landmarks are finite",
            QUARANTINE,
            "a coordinate of a landmark is not a finite number",
            is_true("landmarks_finite"),
            report_column="",
        ),
        Rule(
            "landmarks are apart",
            QUARANTINE,
            f"more than {TOGETHER} landmarks are at one and the same place, such as unknown ones at the corner",
            between("landmarks_together", high=TOGETHER),
        ),
        Rule(
            "landmarks in the image",
            QUARANTINE,
            f"a landmark is outside the image by more than {margin:.0%} of the side",
            between("landmarks_beyond", high=margin),
        ),
        Rule(
            "eyes are apart",
            QUARANTINE,
            f"the distance of the eyes is less than {apart:.0%} of the image width",
            between("eye_distance", apart),
        ),
        Rule(
            "left eye on the left",
            QUARANTINE,
            f"the line through the eyes is rotated by more than {roll:.0f}°: swapped, or of an image not upright",
            between("roll", high=roll),
        ),
    ]

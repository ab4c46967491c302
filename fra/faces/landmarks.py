"""Which landmarks are the eyes."""

EYES = {5: (0, 1), 68: (36, 45), 98: (60, 72)}
"""Indices of the outer corners of the left and right eye as seen in the image (of 5 landmarks: the eyes' centres), by
number of landmarks: 5 of CelebA and RetinaFace, 68 of iBUG 300-W, 98 of WFLW."""

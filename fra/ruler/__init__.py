"""The ruler: backbones compared on thousands of synthetic faces (`dataset=synthetic`), with few and many labels.

Each backbone's feature maps are standardised and kept whole; ridge regression predicts 68 landmarks, yaw, pitch, facial
actions and an open mouth from 100 to 4,000 labelled faces. It is solved in the space of the faces, not of the far more
features, so that a backbone costs less than a minute of CPU time. Fine-tuning the whole backbone takes minutes instead.
The labels are pseudo-labels: a normalised mean error below about 2.5 % measures the annotator, not the backbone.
"""

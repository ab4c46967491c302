"""Faces in photographs: detection, alignment and crops."""

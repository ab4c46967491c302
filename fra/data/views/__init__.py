"""Views: two random crops of an image and their photometric augmentation."""

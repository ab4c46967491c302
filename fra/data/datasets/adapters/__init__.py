"""One module per published layout: its function `records(root, config)` yields one record per image."""

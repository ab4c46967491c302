"""One module a published layout: `records(root, config)` yields its images."""

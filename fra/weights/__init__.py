"""Weight files: reading, writing, released weights, and converters of other projects' layouts."""

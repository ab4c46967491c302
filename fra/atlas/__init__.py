"""The atlas: an interactive map of faces by their embeddings, shown by the viewer of the package embedding-atlas."""

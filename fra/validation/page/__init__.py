"""The pages that the gate writes."""

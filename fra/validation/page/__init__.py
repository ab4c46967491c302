"""The HTML pages that validation writes."""

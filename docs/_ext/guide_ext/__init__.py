"""The Sphinx side of the guide: executed prose, claims, figures, freshness, mathematics."""

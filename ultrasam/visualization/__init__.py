"""Overlays, contact sheets and figures."""

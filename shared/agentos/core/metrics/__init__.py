"""Metrics: what is told, in Prometheus' words. Nothing here is imported before somebody asks for them."""

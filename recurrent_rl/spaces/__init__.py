"""Gymnasium spaces: what observations, actions and masks are, stored and shown to networks.

The only place that asks which space it is.
"""

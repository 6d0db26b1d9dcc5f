"""Populations that search for hyper-parameters and architectures."""

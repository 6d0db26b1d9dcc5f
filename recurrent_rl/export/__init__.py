"""Policies in files that are run without this package: by torch alone, or by any ONNX runtime."""

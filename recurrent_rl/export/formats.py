"""Files of policies: by ``torch.export``, or as ONNX.

Sources: PyTorch's documentation of ``torch.export`` and ``torch.onnx``; https://onnx.ai.
"""

import io
import json
import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from recurrent_rl.export import step as step_module
from recurrent_rl.export.check import check_same, example
from recurrent_rl.export.step import ExportError, PolicyStep
from recurrent_rl.extras import extra_package
from recurrent_rl.spaces.array import Array

# Under which both kinds of file have the description: a file in the archive, an entry of the model.
DESCRIPTION = "recurrent_rl.json"
ROWS = "N"
# Folders of Python, torch and this package: a fault's line elsewhere is the user's own.
NOT_THEIRS = tuple(
    os.path.join(os.path.dirname(file), "")
    for file in (os.__file__, str(torch.__file__), os.path.dirname(step_module.__file__))
)
TRACED = 5  # rows, of which the graph is made for any number; not 1, which would stay 1


def traced(step: PolicyStep) -> ExportedProgram:
    """Return a step as a graph, for any number of rows.

    Raises:
        ExportError: it cannot be traced.

    """
    rows = Dim(ROWS, min=1)
    shapes = tuple({spec.rows_axis: rows} for spec in step.inputs)
    try:
        with torch.no_grad():
            program = torch.export.export(
                step, example(step, TRACED), dynamic_shapes=(shapes,), strict=False
            )
    except Exception as error:  # whatever the network does while it is traced
        raise ExportError(
            f"policy: expected networks that torch.export can trace, got {_reason(error)}; a "
            f"network of your own may not ask for values of tensors (if, float(), .item(), "
            f".numpy()), nor for the number of rows, and may keep nothing between calls"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # has paths of the machine, which are nobody's business
    return program


def _reason(error: Exception) -> str:
    """Say what an error of torch's is, and which line of somebody's own network led to it."""
    said = (str(error).strip().splitlines() or [""])[0][:200]
    frames = traceback.extract_tb(error.__traceback__)
    steps = [i for i, frame in enumerate(frames) if frame.filename == step_module.__file__]
    theirs = [
        frame
        for frame in frames[steps[-1] if steps else len(frames) :]
        if not frame.filename.startswith((*NOT_THEIRS, "<"))
    ]
    where = f" at {theirs[-1].filename}:{theirs[-1].lineno}, {theirs[-1].line}" if theirs else ""
    return f"{type(error).__name__} ({said}){where}"


# --- torch.export --------------------------------------------------------------------------------


def to_pt2(step: PolicyStep, description: Mapping[str, Any]) -> bytes:
    """Return what a .pt2 file has, which ``torch.export.load`` reads; see ``to_bytes``."""
    file = io.BytesIO()
    torch.export.save(traced(step), file, extra_files={DESCRIPTION: json.dumps(description)})
    content = file.getvalue()
    module = torch.export.load(io.BytesIO(content)).module()

    def run(arrays: Sequence[Array]) -> list[Array]:
        return [x.numpy() for x in module(*map(torch.from_numpy, arrays))]

    check_same(step, run)
    return content


# --- ONNX ----------------------------------------------------------------------------------------


def to_onnx(step: PolicyStep, description: Mapping[str, Any]) -> bytes:
    """Return what an .onnx file has; see ``to_bytes``."""
    runtime = _needed()
    program, others = traced(step), step.inputs[1:]
    try:
        with _quiet():
            model: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[spec.name for spec in step.inputs],
                output_names=[spec.name for spec in step.outputs],
                # Said of one, whose size all others share.
                dynamic_shapes=(({step.inputs[0].rows_axis: ROWS}, *(None for _ in others)),),
                verbose=False,
            )
    except Exception as error:  # of the exporter: an operator that ONNX does not have, for example
        raise ExportError(
            f"policy: expected operators that torch.onnx can translate, got {_reason(error)}; "
            f"torch's own format may do: export to a path that ends in .pt2"
        ) from error
    model.model.metadata_props[DESCRIPTION] = json.dumps(description)
    content: bytes = model.model_proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in step.inputs]
    check_same(step, lambda arrays: session.run(None, dict(zip(names, arrays, strict=True))))
    return content


def _needed() -> Any:
    """Return onnxruntime, if it and what torch.onnx needs are installed."""
    what = "export to ONNX (a path that ends in .pt2 needs none)"
    for module in ("onnx", "onnxscript"):
        extra_package(module, "export", what)
    return extra_package("onnxruntime", "export", what)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch.onnx says of itself and of what is not used here."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")

    def of_use(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    registration.addFilter(of_use)
    try:
        with warnings.catch_warnings():
            # It copies trees of its own by what torch has deprecated.
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        registration.removeFilter(of_use)


FORMATS: dict[str, Callable[[PolicyStep, Mapping[str, Any]], bytes]] = {
    "onnx": to_onnx,
    "pt2": to_pt2,
}

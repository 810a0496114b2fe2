"""The floor: an ASGI app that reads rows, asks the booster, answers, and does nothing else.

``python bare.py MODEL PORT``: no check, no log, no metrics, no second version. The question and the answer are those of
the Open Inference Protocol, as ours.
"""

from __future__ import annotations

import sys
from typing import Any

import lightgbm
import numpy as np
import orjson
import uvicorn

HEADERS = [(b"content-type", b"application/json")]


def app(booster: lightgbm.Booster) -> Any:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        if scope["method"] == "POST":
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
        said = _said(booster, body) if body else b"{}"
        length = (b"content-length", b"%d" % len(said))
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
        await send({"type": "http.response.body", "body": said})

    return answer


def _said(booster: lightgbm.Booster, body: bytes) -> bytes:
    tensor = orjson.loads(body)["inputs"][0]
    rows = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
    positive = booster.predict(rows)
    n = len(rows)
    proba = np.column_stack([1.0 - positive, positive])
    return orjson.dumps(
        {
            "model_name": "bare",
            "model_version": "1.0",
            "outputs": [
                {"name": "predict", "datatype": "INT64", "shape": [n], "data": (positive > 0.5).astype(np.int64)},
                {"name": "probabilities", "datatype": "FP64", "shape": [n, 2], "data": proba.reshape(-1)},
            ],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


if __name__ == "__main__":
    uvicorn.run(
        app(lightgbm.Booster(model_file=sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), loop="uvloop",
        http="httptools", access_log=False, log_level="warning", lifespan="off",
    )  # fmt: skip

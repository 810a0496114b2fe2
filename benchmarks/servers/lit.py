"""LitServe over the same booster, as its documentation has a model served: ``python lit.py MODEL PORT``.

Runs in an environment of its own; see ``peers.py``.
"""

import sys

import lightgbm
import litserve
import numpy as np


class Served(litserve.LitAPI):
    def setup(self, device):  # noqa: ARG002
        self.model = lightgbm.Booster(model_file=sys.argv[1])

    def decode_request(self, request):
        return np.asarray(request["rows"], dtype=np.float64)

    def predict(self, x):
        return self.model.predict(x)

    def encode_response(self, output):
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Served(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )

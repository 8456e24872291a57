"""The only room that runs models. Native code lives in a process whose death is an ordinary error.

ONNX Runtime's own packages report usage over the network unless they are told not to before they are loaded.
graphopt tells them not to; whoever wants the reports sets the variables to 0.
"""

import os

for _variable in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_variable, "1")

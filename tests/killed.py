"""Trains one experiment, given as JSON, in a process that a test can kill. Prints the hash of the trained weights."""

import json
import sys
from pathlib import Path

from prffn.config import experiment
from prffn.training import train, weights_sha256

settings, checkpoint = json.loads(sys.argv[1]), Path(sys.argv[2])
print("started", flush=True)
trained = train(experiment(settings), checkpoint=checkpoint, checkpoint_every=0, progress=False)
print(json.dumps({"weights": weights_sha256(trained.model), "curve": trained.curve}))

"""Which options have to be the same at all sites, and their digest."""

import hashlib
import json

from mil.study.run_config import RunConfig

TRAINING_DATA = ("bag", "batch_bags", "tiles_per_batch", "whole_cohort", "passes", "max_tiles", "balance")
"""Options of `data` that have to be the same at all sites."""


def options_digest(config: RunConfig) -> str:
    """Return a digest of the options that have to be the same at all sites: all but where files are."""
    plain = config.plain()
    data = {key: value for key, value in plain["data"].items() if key in TRAINING_DATA}
    same = {key: plain[key] for key in ("seed", "model", "tool", "optimizer", "schedule", "split")}
    epochs = plain["trainer"].get("max_epochs"), plain["trainer"].get("gradient_clip_val")
    text = json.dumps([same, data, epochs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

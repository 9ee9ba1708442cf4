"""Work as jobs of a cluster: the folds, seeds and settings of a training, the shards of a prediction."""

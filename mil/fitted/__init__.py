"""What is fitted besides a model's weights: decisions, calibration, prediction sets, novelty.

`state.FittedState` holds all of it. `FittedState.fit` is called once, at the end of training; the manifest stores the
result; `FittedState.apply` and its members are what predictions, reports and cards use. `specification.Specification`
is what a tool may ask for.
"""

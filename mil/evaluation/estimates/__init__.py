"""Statistics that know nothing of tools: resampling, Cox and logistic regression, DeLong, observed risks."""

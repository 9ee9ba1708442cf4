"""What a table of predictions is worth: metrics with intervals, operating points, risk groups, figures."""

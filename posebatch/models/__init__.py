"""The two networks and their weights: a person detector, and SimpleBaseline for the poses."""

"""How good a bundle is: metrics with confidence intervals, on a folder with truths.

Does not: train or serve anything; it scores through the bundle, as every user of it would.
"""

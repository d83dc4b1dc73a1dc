"""Bars to features: loaders, a simulator with known regimes, indicators, the 7 tactical and 13 strategic features."""

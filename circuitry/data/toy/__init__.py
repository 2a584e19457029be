"""The drawn toy data set: sixteen things in six styles."""

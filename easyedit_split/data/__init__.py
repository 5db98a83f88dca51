"""Pairs of answers to one question: read from files, turned into tokens, split into training and test."""

"""The controllers: the four steps in a row, for each of the two ways of keeping sessions."""

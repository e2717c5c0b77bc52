"""The rules of a step, each replaceable."""

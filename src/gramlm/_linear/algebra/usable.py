"""When an inexact solution is worth a trial."""

# A step that misses no more than this part of the decrease that there is gives twice what it
# misses: its trial says what the exact step's would. Arbitrary.
USABLE_MISS = 1 / 3

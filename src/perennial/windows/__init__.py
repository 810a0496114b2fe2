"""Which examples a stateless training may see.

Every window is half-open in time, ``[start, end)``, and label-aware: ``end`` is the instant of training less the label
delay, because newer examples have no label yet. ``purge`` and ``embargo`` push it back further for labels that look
ahead, such as a five-day return.
"""

from perennial.windows.decayed import Decayed
from perennial.windows.expanding import Expanding
from perennial.windows.mix import Mix
from perennial.windows.sliding import Sliding
from perennial.windows.tumbling import Tumbling

__all__ = ["Decayed", "Expanding", "Mix", "Sliding", "Tumbling"]

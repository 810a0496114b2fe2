"""Which examples a stateless training may see.

Windows in time are half-open, ``[start, end)``, and label-aware: ``end`` is the instant of training less the label
delay, because newer examples have no label yet. Windows in rows count examples whose label is known. ``purge`` and
``embargo`` hold either back further for labels that look ahead, such as a five-day return.
"""

from perennial.windows.decayed import Decayed
from perennial.windows.expanding import Expanding
from perennial.windows.mix import Mix
from perennial.windows.sliding import Sliding
from perennial.windows.tumbling import Tumbling

__all__ = ["Decayed", "Expanding", "Mix", "Sliding", "Tumbling"]

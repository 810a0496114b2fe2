"""How a model is kept current: which training to do, on which examples, when asked at the start of a turn."""

from perennial.strategies.frozen import Frozen
from perennial.strategies.hybrid import Hybrid
from perennial.strategies.protocol import Situation, Strategy
from perennial.strategies.stateful import Stateful
from perennial.strategies.stateless import Stateless

__all__ = ["Frozen", "Hybrid", "Situation", "Stateful", "Stateless", "Strategy"]

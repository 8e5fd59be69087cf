"""batchcast: live maps by WebSocket, popularity in, one consolidated batch-update per viewer out."""

__version__ = "0.1.0"

"""nnInteractive: clicks and boxes, followed by a stateful session of its own."""

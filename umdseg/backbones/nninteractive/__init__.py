"""nnInteractive: clicks, boxes, lassos and scribbles, followed by a stateful session of its own."""

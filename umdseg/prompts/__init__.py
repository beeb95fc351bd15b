"""How a model is asked: by class, by click; and the clicks themselves."""

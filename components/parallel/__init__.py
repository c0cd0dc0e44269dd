"""Several processes that train one model: who does what, what they sum, and how a model is shared out among them."""

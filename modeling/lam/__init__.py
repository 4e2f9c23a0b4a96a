"""A large action model: a language model that chooses tools, binds their arguments, plans and remembers."""

"""ImageBind: six kinds of signals in one space, bound by images."""

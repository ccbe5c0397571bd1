"""A live run: the processes that map, train and watch over them; what receives is in braggscope.live."""

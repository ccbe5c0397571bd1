"""Physics as pure functions on tensors: no state, no random numbers; each cites its source."""

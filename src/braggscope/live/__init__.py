"""Live: frames of a running scan into an append-only store, with a ledger of every expected frame.

`transports/` has one file per way in which frames come, with a simulator beside each; `receiving` writes what comes into a
folder (`run_folder`, `frame_log`, `ledger`) that every other part follows: what maps, what trains, what serves the page. A part
that dies is started again and goes on from the folder.
"""

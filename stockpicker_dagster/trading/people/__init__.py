"""People: who may look, research, decide and administer, and how each proves who they are."""

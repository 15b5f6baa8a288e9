"""Whether a back-test can be told from luck: one question a file, and the verdict that puts them together."""

"""The console's pages, a file each: what is read, and which template shows it. Nothing is computed here."""

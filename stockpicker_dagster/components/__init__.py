"""What a user's YAML turns into."""

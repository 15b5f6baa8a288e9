"""From targets to executed orders."""
